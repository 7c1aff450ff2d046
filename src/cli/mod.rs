//! The command line: one file per command (section 7 of the contract).
