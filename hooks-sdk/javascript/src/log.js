import { host } from "#host";

const write = (level) => (message, fields = {}) => {
  const values = Object.entries(fields).map(([key, value]) => [key, String(value)]);
  host().log.write(level, String(message), values);
};

export const trace = write("trace");
export const debug = write("debug");
export const info = write("info");
export const warn = write("warn");
export const error = write("error");
