// Each kernel of guests/ on the engine: every check that it prints must be ok (system instructions, faults in ring 0, modes).

import assert from "node:assert/strict";
import { test } from "node:test";
import { assemble, GUEST_NAMES } from "./assemble.ts";
import { failures, runGuest } from "./machine.ts";

for (const name of GUEST_NAMES) {
  test(name, { timeout: 60000 }, () => {
    assert.deepEqual(failures(runGuest(assemble(name)), name), []);
  });
}
