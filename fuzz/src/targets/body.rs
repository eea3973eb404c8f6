//! Bodies of requests: `platform::body::Fields`, and what the contract reads of them. The first byte chooses
//! between JSON and forms.

use axum::http::{HeaderMap, HeaderValue, header};
use contract::{CreateUserBody, HoldBody, InitiateBody, Limits, MarkReadBody, PostMessageBody};
use platform::body::Fields;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::{Outcome, choice, refused};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

pub fn run(data: &[u8]) -> Outcome {
    let (choice, body) = choice(data);
    let is_form = choice % 2 == 1;
    let fields = match read(if is_form { FORM } else { JSON }, body) {
        Ok(fields) => fields,
        Err(outcome) => return outcome,
    };
    let again = Value::Object(fields.0.clone());
    if !has_fraction(&again) {
        assert_eq!(read(JSON, again.to_string().as_bytes()), Ok(fields.clone()));
    }
    if is_form {
        assert_eq!(read(FORM, form(&fields).as_bytes()), Ok(fields.clone()));
    }
    means(&fields)
}

/// Fractions are read as nearly what is written, and no route wants any.
fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        _ => false,
    }
}

fn read(content_type: &'static str, body: &[u8]) -> Result<Fields, Outcome> {
    let content_type = HeaderValue::from_static(content_type);
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
    Fields::read(&headers, body).map_err(|error| {
        assert!(error.status().is_client_error(), "{}", error.status());
        refused(&error.message())
    })
}

/// What any of the routes makes of the fields.
fn means(fields: &Fields) -> Outcome {
    let (fields, limits) = (&fields.0, Limits::default());
    let results = [
        CreateUserBody::read(fields, &limits).map(|body| {
            assert!(body.first_name.len() <= limits.name_bytes);
        }),
        InitiateBody::read(fields, &limits).map(|body| {
            assert!((1..=limits.members).contains(&body.user_ids.len()));
        }),
        PostMessageBody::read(fields, &limits).map(|body| {
            // Byte for byte.
            assert_eq!(fields["messageText"], body.message_text);
        }),
        HoldBody::read(fields, &limits).map(drop),
    ];
    let mut outcome = Outcome::Refused;
    for result in results {
        match result {
            Ok(()) => outcome = Outcome::Accepted,
            Err(errors) => {
                assert!(!errors.is_empty());
                errors.values().for_each(|text| {
                    refused(text);
                });
            }
        }
    }
    if let Err(errors) = MarkReadBody::read(fields) {
        assert!(errors.contains_key("upTo"));
    }
    outcome
}

/// The fields as a form. Those of a form are texts and arrays of texts.
fn form(fields: &Fields) -> String {
    let mut form = Serializer::new(String::new());
    for (name, value) in &fields.0 {
        match value {
            Value::String(text) => {
                form.append_pair(name, text);
            }
            Value::Array(texts) => {
                // A name that is empty can't be that of an element.
                let element = match name.as_str() {
                    "" => String::new(),
                    name => format!("{name}[]"),
                };
                for text in texts {
                    form.append_pair(&element, text.as_str().unwrap());
                }
            }
            other => panic!("a form has {other}"),
        }
    }
    form.finish()
}
