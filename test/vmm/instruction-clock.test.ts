// Deterministic mode: time from instructions, leaps while all vCPUs are halted.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "../../src/machine/seeded-host.ts";
import { TimerQueue } from "../../src/vmm/clock.ts";
import { InstructionClock, NS_PER_INSTRUCTION } from "../../src/vmm/instruction-clock.ts";
import { CoreMachine } from "./core-machine.ts";
import { halt } from "./fake-engine.ts";

test("time goes on with what is retired, by whoever runs, and is seen within a run", () => {
  const clock = new InstructionClock();
  const counter = { count: 1000, retired: () => counter.count };
  assert.equal(clock.now(), 0);
  clock.begin(counter);
  assert.equal(clock.now(), 0);
  counter.count += 10;
  assert.equal(clock.now(), 10 * NS_PER_INSTRUCTION);
  clock.end();
  counter.count += 5;
  assert.equal(clock.now(), 10 * NS_PER_INSTRUCTION, "what is retired outside a run is no time");
  clock.skipTo(1e6);
  clock.skipTo(5);
  assert.equal(clock.now(), 1e6);
});

test("a slice ends at the next timer; with all vCPUs halted time leaps to it", () => {
  const clock = new InstructionClock();
  const m = new CoreMachine(2, undefined, clock);
  const at: number[] = [];
  const timer = m.timers.create("t", () => {
    at.push(clock.now());
    if (at.length < 3) timer.arm(clock.now() + 1_000_000);
  });
  timer.arm(8000);
  m.engine.steps.push(() => undefined, halt(true));
  const outcome = m.run();
  assert.deepEqual(m.engine.budgets.slice(0, 2), [8000 / NS_PER_INSTRUCTION, 20_000]);
  // The fake engine counts what it was granted.
  assert.deepEqual(at, [8000, 1_008_000, 2_008_000]);
  assert.deepEqual(outcome, { kind: "idle", wakeAt: Number.POSITIVE_INFINITY });
  assert.ok(m.timers instanceof TimerQueue);
});

test("SplitMix64 gives the numbers of its authors' reference", () => {
  // Vigna's splitmix64.c with seed 1234567.
  const random = new SeededRandom(1234567);
  const expected = [6457827717110365317n, 3203168211198807973n, 9817491932198370423n, 4593380528125082431n];
  assert.deepEqual(
    expected.map(() => random.next()),
    expected,
  );
});
