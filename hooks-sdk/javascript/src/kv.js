import { host } from "#host";
import { KvError, calling } from "./errors.js";

/** The bytes under a key, or `undefined`. */
export function get(key) {
  const value = calling(KvError, () => host().kv.get(key));
  return value === null || value === undefined ? undefined : Uint8Array.from(value);
}
export const set = (key, value) => void calling(KvError, () => host().kv.set(key, value));
const remove = (key) => void calling(KvError, () => host().kv.delete(key));
export const keys = () => calling(KvError, () => host().kv.keys());
export { remove as delete };
