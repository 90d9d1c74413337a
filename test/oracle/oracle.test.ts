// Every described instruction against the host CPU: a slice of the full comparison (`npm run oracle`), and the cases that once differed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { describe, differences } from "./compare.ts";
import { EngineRunner } from "./engine-runner.ts";
import { plansOfHost } from "./host-features.ts";
import { HostRunner, hostUnable } from "./host-runner.ts";
import { LEFT_OUT, plansOf } from "./plan.ts";
import { AREA_BYTES, RESULT } from "./record.ts";
import { REGRESSIONS, requestOf } from "./regressions.ts";
import { runSession } from "./session.ts";

const skip = hostUnable() ?? false;
const ROUNDS = 60;
const TRANSLATED_ROUNDS = 4;
const SECONDS = 60;

test("instructions are either compared or left out with a reason", () => {
  const compared = new Set(plansOf(INSTRUCTIONS).map(({ row }) => row.instruction.name));
  const missing = INSTRUCTIONS.filter(({ name }) => !compared.has(name) && !(name in LEFT_OUT)).map(({ name }) => name);
  assert.deepEqual(missing, []);
});

test("cases that once differed", { skip }, async () => {
  const plans = plansOf(INSTRUCTIONS);
  const host = new HostRunner();
  await host.has16BitCode();
  const engine = new EngineRunner();
  try {
    for (const regression of REGRESSIONS) {
      const plan = plans.find(
        ({ row, mode, form }) => row.text === regression.row && mode === regression.mode && form === regression.form,
      );
      assert.ok(plan !== undefined, `no row ${regression.row}`);
      const request = requestOf(regression);
      const expected = await host.run(request, 1);
      const out = new Uint8Array(RESULT.HEAD + 2 * AREA_BYTES);
      const got = out.subarray(0, engine.run(request, out));
      const found = differences(plan, request, expected, got);
      assert.equal(found.length, 0, `${regression.what}\n${describe(plan, "-", request, found)}`);
    }
  } finally {
    host.close();
  }
});

for (const translated of [false, true]) {
  const how = translated ? "translated" : "interpreted";
  test(`a slice of the comparison with the host CPU, ${how}`, { skip, timeout: 600_000 }, async (t) => {
    const plans = plansOfHost(plansOf(INSTRUCTIONS));
    const end = performance.now() + SECONDS * 1000;
    const until = () => performance.now() > end;
    const outcome = await runSession({
      plans,
      rounds: translated ? TRANSLATED_ROUNDS : ROUNDS,
      reportsEach: 1,
      until,
      translated,
    });
    t.diagnostic(`${outcome.cases} cases of ${plans.length} kinds`);
    const fewest = plans.filter(({ mode }) => mode !== 16).length;
    assert.ok(outcome.cases >= fewest, "not every kind was run");
    assert.equal(
      outcome.differing,
      0,
      `${outcome.differing} cases differ\n\n${outcome.reports.slice(0, 20).join("\n\n")}`,
    );
  });
}
