// Each kernel of guests/ on the engine: every check that it prints must be ok (issue: system instructions, faults in ring 0, modes).

import assert from "node:assert/strict";
import { test } from "node:test";
import { assemble, GUEST_NAMES } from "./assemble.ts";
import { type GuestResult, runGuest } from "./machine.ts";

const PASSED = 1;
const TRIPLE_FAULT = 3;
/** Kernels that end in another way than through the debug exit port. */
const STATUS: { readonly [name: string]: number } = { "triple-fault": TRIPLE_FAULT };

/** Lines that are no check that went well. */
export function failures({ output, status }: GuestResult, name: string): string[] {
  const lines = output.split("\n").filter((line) => line !== "");
  const wrong = lines.filter((line) => !line.startsWith("ok ") && !line.startsWith("done "));
  const expected = STATUS[name] ?? PASSED;
  if (status !== expected && (wrong.length === 0 || status !== TRIPLE_FAULT))
    wrong.push(`status ${status}, not ${expected}, after: ${lines.at(-1)}`);
  if (!lines.some((line) => line.startsWith("ok "))) wrong.push("no check at all");
  return wrong;
}

for (const name of GUEST_NAMES) {
  test(name, { timeout: 60000 }, () => {
    assert.deepEqual(failures(runGuest(assemble(name)), name), []);
  });
}
