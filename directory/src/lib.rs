//! Users and rooms as the log knows them, cached in each process and kept fresh by following the log.
