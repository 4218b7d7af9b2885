// From a hook's class to what the component exports.
import { InvalidSettings, toHookError } from "./errors.js";

/** What a hook extends. Each function has a default, but for those that no hook can do without. */
export class Hook {
  static describe() {
    throw new Error("this hook has no describe()");
  }
  validate(_settings) {}
  prepare(_settings) {
    return { paths: [], summary: "nothing to prepare" };
  }
  preFreeze() {
    throw new Error("this hook has no preFreeze()");
  }
  confirm() {
    throw new Error("this hook has no confirm(): it cannot prove that the application was quiesced");
  }
  postThaw(_outcome) {
    throw new Error("this hook has no postThaw()");
  }
  finish() {}
}

/** The key under which `preFreeze` says, in nanoseconds, for how long the application had been held. */
export const HELD_BEFORE_FREEZE = "held-before-freeze-ns";

/** A need: these statements, as whole texts, on a connection of the operator's. */
export const needsSql = ({ connection, engines, statements, reason, required = true }) => ({
  tag: "sql",
  val: { connection, engines, statements, reason, required },
});
/** A need: a program, with the arguments that it may have. */
export const needsProgram = ({ command, arguments: lists, stdinScripts = [], reason, required = true }) => ({
  tag: "program",
  val: { command, arguments: lists, stdinScripts, reason, required },
});
/** A need: so many bytes of durable state. */
export const needsKv = ({ bytes, reason, required = true }) => ({
  tag: "kv",
  val: { bytes, reason, required },
});

/** `export const lifecycle = component(MyHook);` makes a class the component's export. */
export function component(HookClass) {
  let hook;
  // One component instance serves one run: so does one object.
  const self = () => (hook ??= new HookClass());
  return {
    describe: () => description(HookClass.describe()),
    validate: (settings) => answering(() => void self().validate(parsed(settings))),
    prepare: (settings) => answering(() => plan(self().prepare(parsed(settings)))),
    preFreeze: () => answering(() => frozen(self().preFreeze())),
    confirm: () => answering(() => void self().confirm()),
    postThaw: (outcome) => answering(() => entries(self().postThaw(outcome) ?? {})),
    finish: () => answering(() => void self().finish()),
  };
}

/** What the function gives; what it throws goes out as one of the contract's errors. */
function answering(phase) {
  try {
    return phase();
  } catch (thrown) {
    const { tag, payload } = toHookError(thrown);
    throw { tag, val: payload };
  }
}

function parsed(settings) {
  try {
    return settings === "" ? {} : JSON.parse(settings);
  } catch (error) {
    throw new InvalidSettings("", `not JSON: ${error.message}`);
  }
}

function description({ name, version, summary, settingsSchema, needs = [], freezeBudgetMs = 10_000 }) {
  const schema = settingsSchema ?? { type: "object", additionalProperties: false };
  return { name, version, summary, settingsSchema: JSON.stringify(schema), needs, freezeBudgetMs };
}

const plan = ({ paths = [], summary }) => ({ paths: [...new Set(paths)], summary });

const frozen = ({ consistency, metadata = {} }) => ({ consistency, metadata: entries(metadata) });

/** An object's members as entries of the manifest. */
const entries = (object) => Object.entries(object).map(([key, value]) => ({ key, value: metaValue(key, value) }));

function metaValue(key, value) {
  switch (typeof value) {
    case "string":
      return { tag: "text", val: value };
    case "boolean":
      return { tag: "boolean", val: value };
    case "number":
      if (Number.isSafeInteger(value)) return { tag: "integer", val: value };
      throw new RangeError(`${key} is not a whole number below 2^53: save it as text`);
  }
  if (value instanceof Uint8Array) return { tag: "bytes", val: value };
  throw new TypeError(`${key} is a text, a whole number, true or false, or bytes; not ${typeof value}`);
}
