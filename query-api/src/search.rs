//! Finding what was said in the caller's rooms, by the words in it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use contract::{FieldErrors, Problem, SearchAnswer};
use events::MessageId;
use platform::error::ApiError;
use read_models::{PageStart, Search, Words};

use crate::Options;
use crate::page::Parameters;
use crate::view::Profiles;

/// Bytes in what is searched for.
const MAX_BYTES: usize = 1024;

/// Different words in what is searched for; each is looked up by itself.
const MAX_WORDS: usize = 64;

/// The messages in the caller's rooms that have all of these words, the newest first.
///
/// A word is a run of letters and digits, and is found whole: `chat` does not find `chats`. Everything else
/// separates words and has no meaning. Case and diacritics make no difference. Where a script writes no
/// spaces (Chinese, Japanese, Thai), neighbouring characters are found wherever they stand side by side.
#[utoipa::path(
    get,
    path = "/search",
    tag = "rooms",
    params(
        ("q" = String, Query, description = "the words: at least one, at most 64 different ones (where a script writes no spaces, each character and each pair of neighbours is one), at most 1 KiB"),
        ("room" = Option<String>, Query, description = "a room's id: only messages in it"),
        ("before" = Option<String>, Query, description = "a message id: only messages older than it. The last message of an answer leads to the next"),
        ("limit" = Option<String>, Query, description = "messages at most, up to 100; 10 when absent, 0 or no number"),
        ("Hansard-Position" = Option<String>, Header, description = "wait until the read models have reached this position"),
    ),
    responses(
        (status = 200, description = "the messages", body = SearchAnswer),
        (status = 400, description = "wrong parameters", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "a token is missing or bad", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "only members may", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no such room", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the read models are unavailable or behind the position", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []))
)]
pub(crate) async fn search(
    State(options): State<Arc<Options>>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Json<SearchAnswer>, ApiError> {
    let claims = options.auth.bearer(&headers)?;
    let (words, before, limit) = read(&parameters).map_err(ApiError::validation)?;
    options.reach(&headers).await?;
    let caller = options.member(&claims).await?;
    let room = match parameters.value("room") {
        Some(room) => Some(options.room_of_member(room, caller).await?.id),
        None => None,
    };
    let search = Search {
        words,
        room,
        before,
        limit,
    };
    let rows = options.read_models.search(caller, search).await?;
    // Authors are among the readers.
    let mut ids: Vec<_> = rows
        .iter()
        .flat_map(|row| row.read_by.iter().map(|receipt| receipt.reader))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let profiles = Profiles::load(options.read_models.as_ref(), ids.clone()).await?;
    let messages = rows.into_iter().map(|row| profiles.message(row)).collect();
    Ok(Json(SearchAnswer::new(messages, profiles.members(&ids))))
}

/// What to look for, from where on, and how many.
fn read(parameters: &Parameters) -> Result<(Words, Option<MessageId>, u32), FieldErrors> {
    let mut errors = FieldErrors::new();
    let page = parameters.page(&mut errors);
    let before = match page.start {
        PageStart::Before(message) => Some(message),
        PageStart::Number(0) => None,
        PageStart::Number(_) => {
            errors.insert("page", "a search has no pages: use before".to_owned());
            None
        }
        PageStart::After(_) => {
            errors.insert("after", "a search goes back in time: use before".to_owned());
            None
        }
    };
    let words = words(parameters.value("q"), &mut errors);
    match words {
        Some(words) if errors.is_empty() => Ok((words, before, page.limit)),
        _ => Err(errors),
    }
}

fn words(text: Option<&str>, errors: &mut FieldErrors) -> Option<Words> {
    let problem = match text.map(str::trim) {
        None => "please provide a string".to_owned(),
        Some("") => "string cannot be empty".to_owned(),
        Some(text) if text.len() > MAX_BYTES => {
            format!("string cannot be longer than {MAX_BYTES} bytes")
        }
        Some(text) => {
            let words = Words::of(text);
            match words.len() {
                0 => "please provide a word: letters or digits".to_owned(),
                1..=MAX_WORDS => return Some(words),
                _ => format!("string cannot have more than {MAX_WORDS} words"),
            }
        }
    };
    errors.insert("q", problem);
    None
}
