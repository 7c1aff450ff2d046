//! The SDK for callers that start sagas.
