//! Scalars.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Upload, Value};
use kiln_core::farm::JobId;
use kiln_store::model::Moment;

use crate::app::time;

/// %Y-%m-%dT%H:%M:%SZ
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Time(pub(in super::super) Moment);

#[Scalar(name = "Time")]
impl ScalarType for Time {
    fn parse(_value: Value) -> InputValueResult<Self> {
        Err(InputValueError::custom("nothing takes a time"))
    }

    fn to_value(&self) -> Value {
        Value::String(time::written(self.0))
    }
}

/// base64'd string
#[derive(Debug, Clone)]
pub(in super::super) struct Binary(pub(in super::super) String);

#[Scalar(name = "Binary")]
impl ScalarType for Binary {
    fn parse(_value: Value) -> InputValueResult<Self> {
        Err(InputValueError::custom("nothing takes binary values"))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Where a list goes on. Give it back as it is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Cursor(pub(in super::super) JobId);

#[Scalar(name = "Cursor")]
impl ScalarType for Cursor {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else {
            return Err(InputValueError::expected_type(value));
        };
        let number = text.strip_prefix("before-").unwrap_or_default();
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let id = number.parse().ok().filter(|_| digits);
        id.map(Self).ok_or_else(|| {
            InputValueError::custom(
                "this is no cursor; give back one of an earlier answer, or none",
            )
        })
    }

    fn to_value(&self) -> Value {
        Value::String(format!("before-{}", self.0))
    }
}

/// A file of a multipart request. Its value is never looked at: what would take one
/// refuses every token.
pub(in super::super) struct File(#[expect(dead_code, reason = "see above")] Upload);

#[Scalar(name = "File")]
impl ScalarType for File {
    fn parse(value: Value) -> InputValueResult<Self> {
        let upload = <Upload as async_graphql::InputType>::parse(Some(value));
        upload.map(Self).map_err(InputValueError::propagate)
    }

    fn to_value(&self) -> Value {
        Value::Null
    }
}
