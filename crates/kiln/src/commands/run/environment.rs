//! `-e KEY=VALUE`.

use kiln_core::manifest::EnvName;

use crate::exit::Failure;

/// Reads the options; the last of a name counts.
pub fn parse(options: &[String]) -> Result<Vec<(EnvName, String)>, Failure> {
    let mut variables: Vec<(EnvName, String)> = Vec::new();
    for option in options {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            Failure::usage(format!(
                "-e {option}: a value is missing; write it as KEY=VALUE"
            ))
        })?;
        let name = EnvName::parse(name)
            .map_err(|problem| Failure::usage(format!("-e {option}: {problem}")))?;
        if value.contains('\0') {
            return Err(Failure::usage(format!(
                "-e {name}: a value can't have a zero byte"
            )));
        }
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value.to_owned()));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts_and_values_may_have_equal_signs() {
        let options = ["A=1", "B=x=y", "A="].map(str::to_owned);
        let variables = parse(&options).unwrap();
        let found: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, [("B", "x=y"), ("A", "")]);
        assert!(parse(&["A".to_owned()]).is_err());
        assert!(parse(&["1A=2".to_owned()]).is_err());
    }
}
