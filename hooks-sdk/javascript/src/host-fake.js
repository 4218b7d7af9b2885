// The host's functions outside a component, as in a unit test: those of the FakeHost that is in use.
let current;

/** Makes `functions` the host of everything in this process; `undefined` takes it away. */
export function useHost(functions) {
  current = functions;
}

export const host = () => {
  if (current === undefined) {
    throw new Error("no host: this is not a component; make a FakeHost (stillpoint-hook/testing) first");
  }
  return current;
};
