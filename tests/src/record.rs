//! The log as those see it who audit it.

use serde_json::Value;

use crate::client::TestClient;
use crate::stack::Stack;

/// Somebody who may read the record itself.
#[derive(Debug)]
pub struct Auditor {
    client: TestClient,
}

impl Auditor {
    /// A new auditor.
    pub async fn new(stack: &Stack) -> Self {
        let auditor = stack.auditor("Auditor").await;
        Self {
            client: auditor.client,
        }
    }

    /// The events of the log in its order, without the readings of the record, such as this one; `query` is
    /// empty or like `room=ID`.
    ///
    /// # Panics
    /// The record can't be read to its end.
    pub async fn events(&self, query: &str) -> Vec<Value> {
        let answer = self.client.audit_events(query).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
            .text
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                assert!(line["event"].is_object(), "{line}");
                line
            })
            .filter(|line| line["event"]["type"] != "audit.read")
            .collect()
    }

    /// How many events of this type there are; `query` as for [`Self::events`].
    ///
    /// # Panics
    /// As [`Self::events`].
    pub async fn count(&self, event_type: &str, query: &str) -> usize {
        let events = self.events(query).await;
        let those = events.iter().filter(|it| it["event"]["type"] == event_type);
        those.count()
    }
}
