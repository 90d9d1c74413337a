// A kick from another thread ends a run, wherever it falls, and none is lost between what was posted and the run that begins.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { kick, limitWord } from "../../src/cpu/kick.ts";
import { EXIT } from "../../src/isa/exit.ts";
import { FLAG, RFLAGS, RIP, SHADOW } from "../../src/isa/state.ts";
import { AT, everything, Rig } from "./rig.ts";

const SPIN = [0xeb, 0xfe];
const STI = 0xfb;
const NOP = 0x90;
const PAUSE = [0xf3, NOP];

test("a kick between runs is forgotten, one that was posted before is asked for", () => {
  let posted = false;
  const rig = new Rig(everything(), { requested: () => posted }).longMode();
  kick(limitWord(rig.engine.memory));
  assert.equal(rig.run(SPIN, AT.CODE, 1000), EXIT.BUDGET);
  assert.equal(rig.engine.retired(), 1000);
  posted = true;
  assert.equal(rig.run(SPIN, AT.CODE, 1000), EXIT.BUDGET);
  assert.equal(rig.engine.retired(), 1000);
});

// What is posted while an instruction is looked up finds the vCPU before the lookup or behind the instruction, never between.
test("a kick during the lookup behind STI leaves its shadow", () => {
  let pages = 0;
  const rig: Rig = new Rig(everything(), {
    // The page of the instruction behind has no code yet, so that others are told of it.
    protectPage: () => {
      if (++pages === 2) kick(limitWord(rig.engine.memory));
    },
  }).longMode();
  const last = AT.CODE + 0xfff;
  rig.write(last, [STI, NOP, NOP, ...SPIN]);
  rig.engine.set(RFLAGS, Number(rig.engine.get(RFLAGS)) & ~FLAG.IF);
  rig.engine.set(RIP, last);
  assert.equal(rig.engine.run(1000), EXIT.BUDGET);
  assert.equal(pages, 2);
  assert.ok(
    rig.engine.get(SHADOW) !== 0 || Number(rig.engine.get(RIP)) > last + 1,
    "the shadow is gone, and nothing ran",
  );
});

for (const threshold of [undefined, 1]) {
  test(`a run ends after so many PAUSEs, where it is to, ${threshold === undefined ? "interpreted" : "translated"}`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    rig.run([...PAUSE, 0xeb, 0xfc], AT.CODE, 5000);
    const executed = (pauses: number): number => {
      const before = rig.engine.retired();
      assert.equal(rig.engine.run(1000, pauses), EXIT.BUDGET);
      return rig.engine.retired() - before;
    };
    assert.deepEqual([5, 1, 0, 300, 600].map(executed), [10, 2, 1000, 600, 1000]);
    if (threshold !== undefined) assert.ok(rig.engine.statistics().retiredInRegions > 1000);
  });

  test(`another thread ends runs that would not end, ${threshold === undefined ? "interpreted" : "translated"}`, async () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    const rounds = 200;
    const control = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(new URL("./kicker.ts", import.meta.url), {
      workerData: { memory: rig.engine.memory, control, rounds },
    });
    rig.run(SPIN, AT.CODE, 5000);
    const done = new Promise<number>((resolve) => worker.on("exit", resolve));
    const before = rig.engine.retired();
    for (let round = 1; round <= rounds; round++) {
      // The other thread kicks again until it sees that the run has ended, since here nothing is posted that could be asked for.
      Atomics.store(control, 0, 2 * round - 1);
      assert.equal(rig.engine.run(0x7ffffff0), EXIT.BUDGET);
      Atomics.store(control, 0, 2 * round);
    }
    assert.ok(rig.engine.retired() > before);
    assert.equal(await done, 0);
  });
}
