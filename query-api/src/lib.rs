//! The read side over HTTP: GET, answered from the read models.
