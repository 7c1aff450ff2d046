//! A broker inside the process: for the embedded mode and tests.
