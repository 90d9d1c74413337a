// Each kernel of guests/ on the engine: every check that it prints must be ok (system instructions, faults in ring 0, modes).

import assert from "node:assert/strict";
import { test } from "node:test";
import { assemble, GUEST_NAMES, SKIP } from "./assemble.ts";
import { failures, type GuestOptions, runGuest, WHOLE_MACHINE } from "./machine.ts";

// A save in mid-work must lose nothing, and where the engine returns must make no difference: slices of few instructions put that between
// any two instructions, in shadows, in steps, before faults.
const WAYS: readonly (GuestOptions & { readonly title: string })[] = [
  { title: "" },
  { title: ", one instruction at a time", slice: 1 },
  { title: ", saved and restored all the time", slice: 3, restore: true },
  { title: ", translated early", slice: 300, hot: 2, rounds: 4 },
];

for (const name of GUEST_NAMES) {
  if (WHOLE_MACHINE.has(name)) continue;
  for (const { title, ...options } of WAYS) {
    test(`${name}${title}`, { timeout: 60000, skip: SKIP }, () => {
      assert.deepEqual(failures(runGuest(assemble(name), options), name), []);
    });
  }
}
