//! The JSON Schema of definitions, for editors. It describes shapes; what needs the whole definition, such as the
//! order of steps, only [`read`](super::read) finds.

use serde_json::{Value, json};

/// The schema, draft 2020-12.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "amends saga definition",
        "type": "object",
        "required": ["saga", "version", "steps"],
        "additionalProperties": false,
        "properties": {
            "saga": { "$ref": "#/$defs/name", "description": "The definition's name." },
            "version": { "type": "integer", "minimum": 1, "maximum": i32::MAX, "description": "A version never changes; a change is a new version." },
            "owner": { "type": "string", "description": "The team that answers for this saga." },
            "runbook": { "type": "string", "description": "Where operators read what to do." },
            "key": { "type": "string", "description": "Gives the saga's key from its input, for example ${ input.orderId }. Starting twice with one key gives one saga." },
            "input": {
                "type": "object",
                "required": ["schema"],
                "additionalProperties": false,
                "properties": { "schema": { "type": ["object", "boolean"], "description": "The JSON Schema that an input must satisfy." } }
            },
            "timeout": { "$ref": "#/$defs/duration", "description": "How long the saga may take until its pivot is sent; then it compensates." },
            "defaults": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "timeout": { "$ref": "#/$defs/duration", "description": "How long one attempt may take. Default 30s." },
                    "retry": { "$ref": "#/$defs/retry" },
                    "compensation": {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": { "timeout": { "$ref": "#/$defs/duration" }, "retry": { "$ref": "#/$defs/retry" } }
                    }
                }
            },
            "steps": { "type": "array", "minItems": 1, "maxItems": 500, "items": { "$ref": "#/$defs/step" } },
            "output": { "description": "What a completed saga puts out; texts may hold ${ expressions }." }
        },
        "$defs": {
            "name": { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$" },
            "duration": { "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "description": "A whole number with a unit: 250ms, 30s, 15m, 2h, 1d." },
            "retry": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "maxAttempts": { "type": "integer", "minimum": 0, "maximum": 1_000_000, "description": "The first attempt counts; 0 is without limit. Default 5, for compensations 20." },
                    "initialInterval": { "$ref": "#/$defs/duration", "description": "The wait before the second attempt. Default 1s." },
                    "backoffCoefficient": { "type": "number", "minimum": 1, "maximum": 100, "description": "By what the wait grows. Default 2." },
                    "maxInterval": { "$ref": "#/$defs/duration", "description": "The longest wait. Default 30s, for compensations 5m." },
                    "jitter": { "enum": ["full", "none"], "description": "Whether each wait is drawn between zero and its full length. Default full." },
                    "nonRetryable": { "type": "array", "items": { "type": "string" }, "description": "Error types that are not tried again." }
                }
            },
            "step": step()
        }
    })
}

fn step() -> Value {
    json!({
        "type": "object",
        "required": ["name"],
        "oneOf": [
            { "required": ["participant", "action"] },
            { "required": ["saga"] },
            { "required": ["wait"] },
            { "required": ["delay"] }
        ],
        "additionalProperties": false,
        "properties": {
            "name": { "$ref": "#/$defs/name", "description": "Unique in the definition." },
            "participant": { "$ref": "#/$defs/name", "description": "The service; its queue is <participant>.commands." },
            "action": { "$ref": "#/$defs/name", "description": "What it is asked to do; the routing key is <participant>.<action>." },
            "saga": { "$ref": "#/$defs/name", "description": "Instead of participant and action: another saga, which this step starts and whose end it waits for. Its compensation sends that saga back." },
            "version": { "type": "integer", "minimum": 1, "maximum": i32::MAX, "description": "The other saga's version; the newest when the step is sent, if not given." },
            "wait": {
                "description": "Instead of participant and action: waits for a signal from outside, whose payload is the step's output.",
                "type": "object",
                "required": ["signal", "timeout"],
                "additionalProperties": false,
                "properties": {
                    "signal": { "$ref": "#/$defs/name", "description": "The signal's name." },
                    "timeout": { "$ref": "#/$defs/duration", "description": "How long to wait at most." },
                    "onTimeout": { "enum": ["fail", "continue"], "description": "What becomes of the step then: it fails, or is skipped. Default fail." }
                }
            },
            "delay": { "$ref": "#/$defs/duration", "description": "Instead of participant and action: waits for so long." },
            "forEach": {
                "description": "Does the step once for each item of a list of the input; its expressions read `item` and `index`, its output is the list of outputs, and each item is compensated on its own.",
                "oneOf": [
                    { "type": "string" },
                    {
                        "type": "object",
                        "required": ["items"],
                        "additionalProperties": false,
                        "properties": {
                            "items": { "type": "string", "description": "The list, for example ${ input.lines }." },
                            "maxParallel": { "type": "integer", "minimum": 1, "maximum": 500, "description": "How many items are under way at once; all of them if not given." },
                            "maxItems": { "type": "integer", "minimum": 1, "maximum": 500, "description": "How many items there may be. Default 100." }
                        }
                    }
                ]
            },
            "input": { "description": "The command's body, or the other saga's input; this saga's input if not given." },
            "output": {
                "type": "object",
                "required": ["schema"],
                "additionalProperties": false,
                "properties": { "schema": { "type": ["object", "boolean"], "description": "What the step puts out, of a forEach step each item. Expressions that read it are checked against it; replies are not." } }
            },
            "when": { "type": ["string", "boolean"], "description": "A step whose condition is false is skipped." },
            "after": { "type": "array", "items": { "$ref": "#/$defs/name" }, "description": "The steps it waits for. Default: the step before; [] starts at once." },
            "timeout": { "$ref": "#/$defs/duration", "description": "How long one attempt may take." },
            "retry": { "$ref": "#/$defs/retry" },
            "pivot": { "type": "boolean", "description": "Once this step was sent, the saga only goes forward." },
            "compensation": {
                "description": "What undoes it. Must be said of every step that is not after the pivot.",
                "oneOf": [
                    { "const": "none" },
                    {
                        "type": "object",
                        "required": ["action"],
                        "additionalProperties": false,
                        "properties": {
                            "action": { "$ref": "#/$defs/name" },
                            "input": { "description": "The command's body; that of the action if not given." },
                            "timeout": { "$ref": "#/$defs/duration" },
                            "retry": { "$ref": "#/$defs/retry" }
                        }
                    }
                ]
            }
        }
    })
}
