import { host } from "#host";
import { ProcessError, calling } from "./errors.js";
import { nanoseconds } from "./run.js";

/** Runs a granted program to its end. */
export function run(command, args = [], { stdin, timeoutMs } = {}) {
  const timeout = nanoseconds(timeoutMs);
  return calling(ProcessError, () => host().process.run(command, args, stdin ?? null, timeout));
}
