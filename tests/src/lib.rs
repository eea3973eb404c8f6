//! Black-box suites against real servers, and the harness that starts them.
