// The memory model between vCPUs on threads of their own, and code that one of them changes, on both engines. SKEP_TEST_LITMUS multiplies the
// rounds: `SKEP_TEST_LITMUS=200 bin/node --test test/smp/litmus.test.ts` is the full run, some millions of rounds of each.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { SKIP } from "../guests/assemble.ts";
import { endThreads, type LitmusResult, runLitmus } from "./machine.ts";

after(endThreads);

const FACTOR = Number(process.env.SKEP_TEST_LITMUS ?? "1");

const COUNTER = 0x1300;

interface Litmus {
  readonly name: string;
  readonly cpus: number;
  readonly rounds: number;
  readonly prepare?: (data: DataView) => void;
  readonly check?: (result: LitmusResult, rounds: number, cpus: number) => void;
}

function quad(data: DataView, at: number): number {
  return Number(data.getBigUint64(at, true));
}

/** No two observers disagree about the order of two writes: one saw X at `a` before Y passed `b`, the other the other way around. */
function checkOrder({ data }: LitmusResult): void {
  const pairs = (cpu: number): [number, number][] =>
    Array.from({ length: 8192 }, (_, n) => {
      const at = 0x10000 + cpu * 0x10000 + n * 8;
      return [data.getUint32(at, true), data.getUint32(at + 4, true)];
    });
  const seenXFirst = pairs(2);
  const seenYFirst = pairs(3);
  let m = 0;
  for (const [x, y] of seenXFirst) {
    while (m < seenYFirst.length && seenYFirst[m][1] < x) m++;
    // All before m saw X older than x after they had read Y.
    if (m > 0)
      assert.ok(seenYFirst[m - 1][0] <= y, `X ${x} before Y ${y}, and Y ${seenYFirst[m - 1][0]} before that X`);
  }
}

const sum = (result: LitmusResult, expected: number, at = COUNTER): void =>
  assert.equal(quad(result.data, at), expected);

const TESTS: readonly Litmus[] = [
  { name: "sb", cpus: 2, rounds: 1000 },
  { name: "sb_fenced", cpus: 2, rounds: 1000 },
  { name: "sb_locked", cpus: 2, rounds: 1000 },
  { name: "mp", cpus: 2, rounds: 200_000 },
  { name: "mp", cpus: 3, rounds: 100_000 },
  { name: "mp_strings", cpus: 2, rounds: 20_000 },
  ...Array.from({ length: Math.max(1, Math.round(FACTOR)) }, () => ({
    name: "iriw",
    cpus: 4,
    rounds: 0,
    check: checkOrder,
  })),
  {
    name: "increments",
    cpus: 3,
    rounds: 10_000,
    check: (result, rounds, cpus) => sum(result, 8 * rounds * cpus),
  },
  {
    name: "increments_split",
    cpus: 3,
    rounds: 1000,
    check: (result, rounds, cpus) => {
      sum(result, 8 * rounds * cpus, 0x333e);
      sum(result, 8 * rounds * cpus, 0x2ffe);
      assert.ok(result.statistics.every(({ splitLocks }) => splitLocks >= rounds * 18));
    },
  },
  { name: "spinlock", cpus: 3, rounds: 5000, check: (result, rounds, cpus) => sum(result, rounds * cpus) },
  { name: "bitlock", cpus: 3, rounds: 5000, check: (result, rounds, cpus) => sum(result, rounds * cpus) },
  {
    name: "exchange16",
    cpus: 3,
    rounds: 5000,
    check: (result, rounds, cpus) => {
      sum(result, rounds * cpus);
      sum(result, 3 * rounds * cpus, COUNTER + 8);
    },
  },
  {
    name: "exchange8",
    cpus: 3,
    rounds: 5000,
    check: ({ data }, rounds, cpus) => {
      assert.equal(data.getUint32(COUNTER, true), rounds * cpus);
      assert.equal(data.getUint32(COUNTER + 4, true), 3 * rounds * cpus);
    },
  },
  {
    name: "mixed_word",
    cpus: 4,
    rounds: 20_000,
    check: ({ data }, rounds) => {
      assert.equal(data.getUint32(COUNTER, true), rounds);
      assert.equal(data.getUint8(COUNTER + 4), rounds & 0xff);
      assert.equal(data.getUint16(COUNTER + 5, true), rounds & 0xffff);
      assert.equal(data.getUint8(COUNTER + 7), rounds & 0xff);
    },
  },
  {
    name: "inversions",
    cpus: 3,
    rounds: 10_000,
    prepare: (data) => data.setUint32(0x1100, 5, true),
    check: (result) => {
      sum(result, 0, 0x1000);
      sum(result, 5, 0x1100);
      sum(result, 0);
      sum(result, 0, COUNTER + 0x40);
    },
  },
  { name: "patched_flag", cpus: 3, rounds: 200 },
  { name: "patched_int3", cpus: 3, rounds: 20 },
  { name: "fresh_pages", cpus: 3, rounds: 300 },
  { name: "pages_mixed", cpus: 4, rounds: 30 },
  { name: "dirty_bits", cpus: 3, rounds: 100 },
];

for (const { name, cpus, rounds, prepare, check } of TESTS) {
  for (const threshold of [undefined, 20]) {
    const way = threshold === undefined ? "interpreted" : "translated";
    test(`${name}, ${cpus} vCPUs, ${way}`, { skip: SKIP }, async (context) => {
      const total = Math.round(rounds * FACTOR);
      const options = { cpus, rounds: total, ...(threshold === undefined ? {} : { threshold }) };
      const result = await runLitmus(name, { ...options, ...(prepare === undefined ? {} : { prepare }) });
      assert.deepEqual(
        result.forbidden,
        result.forbidden.map(() => 0),
      );
      check?.(result, total, cpus);
      if (result.weak.some((count) => count !== 0))
        context.diagnostic(`${name}: weak outcomes ${result.weak.join(", ")}`);
    });
  }
}
