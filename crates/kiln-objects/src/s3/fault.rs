//! What an object store's errors mean: a sentence for the operator. Whole answers are not
//! repeated, for they are long, and have parts of signatures in them.

use std::{error::Error as _, io};

use object_store::Error;

/// As an error of this process.
pub(super) fn of(error: &Error) -> io::Error {
    let kind = match error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("the object store failed: {}", cause(error)))
}

/// The innermost cause, without the body of an answer but for its code.
pub(super) fn cause(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    short(&text)
}

fn short(text: &str) -> String {
    let Some((before, body)) = text.split_once('<') else {
        return text.to_owned();
    };
    let before = before.trim_end_matches([':', ' ']);
    let code = body.split_once("<Code>");
    match code.and_then(|(_, rest)| rest.split_once("</Code>")) {
        Some((code, _)) => format!("{before} ({code})"),
        None => before.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_only_the_code_is_told() {
        let answer = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\
            <Error><Code>SignatureDoesNotMatch</Code><StringToSign>AWS4…</StringToSign></Error>";
        let told = "Server returned non-2xx status code: 403 Forbidden (SignatureDoesNotMatch)";
        assert_eq!(short(answer), told);
        assert_eq!(short("503: <html>"), "503");
        assert_eq!(short("connection refused"), "connection refused");
    }
}
