// Guests that run wild: random bytes as a kernel, some of them with many port and memory accesses among them. Whatever they do, the machine
// comes back from each slice, counts what happened, and can be reset for the next one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { webHost } from "../../src/host/host.ts";
import { MemoryBlockStorage } from "../../src/host/memory-block.ts";
import { machineConfig } from "../../src/machine/config.ts";
import { Machine } from "../../src/machine/machine.ts";
import { HostClock } from "../../src/vmm/clock.ts";
import { multibootKernel, out } from "../api/guest.ts";
import { Random } from "../devices/fakes.ts";

const SEEDS = Number(process.env.SKEP_WILD_SEEDS ?? 1000);
const SLICES = 20;
/** A slice ends after 100 us or so; one that takes this long is beyond control. */
const SLICE_MS_MAX = 2000;

const PORTS = [
  0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x92, 0xa0, 0x3f8, 0x3f9, 0x3fb, 0x600, 0x608, 0xcf8, 0xcfc,
];
const ADDRESSES = [0xfee00000, 0xfec00000, 0xfed00000, 0xe0000000, 0xc0000000, 0xfff00000];

function wildCode(random: Random): number[] {
  const code: number[] = [];
  while (code.length < 2000) {
    const kind = random.below(4);
    if (kind === 0) code.push(...random.bytes(random.below(40)));
    else if (kind === 1) code.push(...out(random.pick(PORTS) + random.below(2), random.below(256)));
    else if (kind === 2) {
      // mov eax, value; mov [address], eax; mov eax, [address]
      const address = random.pick(ADDRESSES) + random.below(0x1000);
      const bytes = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
      code.push(0xb8, ...bytes(random.next()), 0xa3, ...bytes(address), 0xa1, ...bytes(address));
    } else code.push(0xe5, random.below(256));
  }
  return code;
}

test(`${SEEDS} guests of random bytes`, { timeout: 600_000 }, () => {
  const clock = new HostClock(webHost.now);
  const machine = new Machine({
    config: machineConfig({ engine: "interpret", memory: "16M", debugExit: true }),
    disks: [{ storage: new MemoryBlockStorage(new Uint8Array(1 << 16)), serial: "wild" }],
    clock,
    host: { ...webHost, engineModule: engineModule() },
    trace: {},
    onSerial() {},
    onConsole() {},
    onRoom() {},
  });
  clock.start();
  const endings = new Map<string, number>();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = new Random(seed);
    machine.reset();
    const code = seed % 2 === 0 ? wildCode(random) : [...random.bytes(3000)];
    machine.boot({ bytes: multibootKernel(code), name: "wild", commandLine: "" });
    let slices = 0;
    let last = performance.now();
    let slowest = 0;
    const outcome = machine.run(() => {
      const now = performance.now();
      slowest = Math.max(slowest, now - last);
      last = now;
      return ++slices >= SLICES;
    });
    assert.ok(slowest < SLICE_MS_MAX, `seed ${seed}: a slice took ${slowest} ms`);
    const ending = outcome.kind === "exit" ? outcome.exit.reason : outcome.kind;
    assert.notEqual(ending, "error", `seed ${seed}: ${JSON.stringify(outcome)}`);
    endings.set(ending, (endings.get(ending) ?? 0) + 1);
  }
  const { anomalies } = machine.statistics();
  const faults = Object.keys(anomalies).filter((kind) => kind.includes("internal error"));
  assert.deepEqual(faults, []);
  assert.ok((endings.get("triple-fault") ?? 0) > 0, JSON.stringify([...endings]));
});
