//! The HTTP interface: one file per resource (section 6 of the contract).
