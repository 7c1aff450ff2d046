//! `/openapi.json`: the routes from the one table, the schemas from the types that go over the wire.

use axum::Json as Answer;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::api::auth::Right;
use crate::api::routes::{Gives, ROUTES, Route, Takes};
use crate::client::views;

#[derive(OpenApi)]
#[openapi(components(schemas(
    views::AdviceView,
    views::AuditPage,
    views::BatchRequest,
    views::BatchResult,
    views::BulkItemPage,
    views::BulkPage,
    views::BulkPreviewView,
    views::BulkRequestBody,
    views::BulkSteerBody,
    views::BulkView,
    views::DeadLetterPage,
    views::DeadLetterRequest,
    views::DeadLetterResult,
    views::DeadQueueList,
    views::DefinitionList,
    views::DefinitionVersions,
    views::DefinitionView,
    views::DeliveryItem,
    views::DeliveryPage,
    views::EditRequest,
    views::HealthView,
    views::HistoryView,
    views::MigrateRequest,
    views::MigrationItem,
    views::MigrationPage,
    views::OperateRequest,
    views::OutboxPage,
    views::ParticipantList,
    views::PauseRequest,
    views::PauseResult,
    views::OverviewView,
    views::ProblemDocument,
    views::ReasonRequest,
    views::SagaPage,
    views::SagaView,
    views::PreviewView,
    views::PlannedView,
    views::SignalBody,
    views::SignalRequest,
    views::SignalResult,
    views::StartBody,
)))]
struct Schemas;

pub(super) async fn document() -> Answer<Value> {
    Answer(describe())
}

/// The whole interface as OpenAPI 3.1.
pub(super) fn describe() -> Value {
    let mut document = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    document["info"] = json!({
        "title": "amends",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "A saga coordinator. Errors are RFC 9457 problem documents with a stable `code`.",
        "license": { "name": env!("CARGO_PKG_LICENSE") },
    });
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route);
    }
    document["paths"] = Value::Object(paths);
    document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
    document
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": format!("Least role, where tokens are set: {}.", route.right.least_role()),
        "parameters": parameters(route),
        "responses": responses(route),
        "security": if route.right == Right::Open { json!([]) } else { json!([{ "token": [] }]) },
    });
    let body = match route.takes {
        Takes::Nothing => return operation,
        Takes::Definition => json!({
            "application/yaml": { "schema": { "type": "string" } },
            "application/json": { "schema": { "type": "object" } },
        }),
        Takes::Json(schema) => json!({ "application/json": { "schema": reference(schema) } }),
    };
    operation["requestBody"] = json!({ "required": true, "content": body });
    operation
}

/// `GET /v1/sagas/{id}/history` is `getSagasIdHistory`.
fn operation_id(route: &Route) -> String {
    let mut id = route.method.as_str().to_lowercase();
    for part in route.path.split(['/', '.']).map(|part| part.trim_matches(['{', '}'])) {
        let mut letters = part.chars();
        if part != "v1"
            && let Some(first) = letters.next()
        {
            id.extend(first.to_uppercase());
            id.push_str(letters.as_str());
        }
    }
    id
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| {
        let schema = match name {
            "id" => json!({ "type": "string", "format": "uuid" }),
            "version" => json!({ "type": "integer", "minimum": 1 }),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let in_query = route.query.iter().map(|&name| {
        let schema = match name {
            "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 500, "default": 50 }),
            "state" => json!({ "type": "array", "items": { "type": "string" } }),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "query", "schema": schema })
    });
    let has_revision = route.right == Right::Operate && route.path.starts_with("/v1/sagas/{id}/");
    let if_match = has_revision.then(|| {
        json!({
            "name": "If-Match", "in": "header", "schema": { "type": "string" },
            "description": "The saga's ETag as it was seen; refused with 412 when the saga has moved since.",
        })
    });
    let namespace = (route.right != Right::Open).then(|| {
        json!({
            "name": "amends-namespace", "in": "header", "schema": { "type": "string" },
            "description": "Which namespace is meant, where the token leaves a choice; 404 for any other.",
        })
    });
    let is_traced = route.right == Right::Start && matches!(route.path, "/v1/sagas" | "/v1/sagas/batch");
    let trace = [
        ("traceparent", "The caller's span, of whose trace the sagas are a part (W3C Trace Context)."),
        ("tracestate", "What vendors have to say about it; passed on as it came."),
    ];
    let trace = trace.into_iter().filter(|_| is_traced).map(|(name, description)| {
        json!({ "name": name, "in": "header", "schema": { "type": "string" }, "description": description })
    });
    in_path.chain(in_query).chain(if_match).chain(namespace).chain(trace).collect()
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    for (status, gives) in route.gives {
        let content = match gives {
            Gives::Json(schema) => json!({ "application/json": { "schema": reference(schema) } }),
            Gives::Either(done, dry) => {
                let schema = json!({ "oneOf": [reference(done), reference(dry)] });
                json!({ "application/json": { "schema": schema } })
            }
            Gives::Other(kind) => json!({ *kind: {} }),
        };
        responses.insert(status.to_string(), json!({ "description": described(*status), "content": content }));
    }
    let mut problems = route.problems.to_vec();
    problems.extend([400, 500, 503]);
    if route.right != Right::Open {
        problems.extend([401, 403]);
    }
    problems.sort_unstable();
    for status in problems {
        let content = json!({ "application/problem+json": { "schema": reference("ProblemDocument") } });
        responses.insert(status.to_string(), json!({ "description": described(status), "content": content }));
    }
    Value::Object(responses)
}

fn described(status: u16) -> &'static str {
    let status = axum::http::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Answer")
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = describe();
        let paths = document["paths"].as_object().expect("paths");
        let described: usize = paths.values().map(|path| path.as_object().map_or(0, Map::len)).sum();
        assert_eq!(described, ROUTES.len(), "two routes share a row, or one is missing");
        for route in ROUTES {
            let method = route.method.as_str().to_lowercase();
            assert!(paths[route.path][&method]["summary"].is_string(), "{method} {}", route.path);
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = describe();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let named: Vec<&str> =
            text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.len() > 50);
        for name in named {
            assert!(schemas.contains_key(name), "{name} is not described");
        }
    }

    #[test]
    fn no_two_operations_share_an_id() {
        let mut ids: Vec<String> = ROUTES.iter().map(operation_id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
