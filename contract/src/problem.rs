//! The body of every refusal.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// Why a request was refused: the tutorial's members, and those of RFC 9457 beside them. Sent as
/// `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `false`.
    pub success: bool,
    /// What was wrong.
    #[schema(example = "No room exists for this id")]
    pub message: String,
    /// Which fields of the request are wrong, and how; only where fields are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<BTreeMap<String, String>>,
    /// A name for this kind of problem that never changes.
    #[schema(example = "not-found")]
    pub code: String,
    /// The kind of problem as a URI reference (RFC 9457).
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub problem_type: String,
    /// The HTTP status in words (RFC 9457).
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status (RFC 9457).
    #[schema(example = 404)]
    pub status: u16,
    /// What was wrong and what to do (RFC 9457).
    pub detail: String,
}
