export { HELD_BEFORE_FREEZE, Hook, component, needsKv, needsProgram, needsSql } from "./component.js";
export {
  ApplicationError,
  Busy,
  Denied,
  HookError,
  Internal,
  InvalidSettings,
  KvError,
  NotApplicable,
  ProcessError,
  RowError,
  SqlError,
  Timeout,
  toHookError,
} from "./errors.js";
export * as kv from "./kv.js";
export * as log from "./log.js";
export * as process from "./process.js";
export * as run from "./run.js";
export * as sql from "./sql.js";
