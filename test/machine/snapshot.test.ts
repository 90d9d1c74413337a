// A whole machine saved in the middle of Linux's work, again and again, and continued each time in a new machine made from what was saved.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { webHost } from "../../src/host/host.ts";
import { MemoryBlockStorage } from "../../src/host/memory-block.ts";
import { buildInitramfs, VIRTIO_MODULES } from "../../src/host/node/initramfs.ts";
import { machineConfig } from "../../src/machine/config.ts";
import { Machine } from "../../src/machine/machine.ts";
import { HostClock } from "../../src/vmm/clock.ts";
import { type Section, StateError } from "../../src/vmm/state.ts";
import type { VmExit } from "../../src/vmm/vm.ts";
import { cachedGuest } from "../api/guest.ts";

const guest = await cachedGuest();
const options = guest === undefined ? { skip: "Debian's guest is not in the cache" } : { timeout: 240_000 };
const MIB = 2 ** 20;
/** Virtual times at which the machine is saved, in milliseconds. */
const MOMENTS = [150, 900, 1500, 2200, 2800, 3500, 4500];

interface Saved {
  readonly state: Section;
  readonly ram: Uint8Array;
}

class TestMachine {
  readonly clock = new HostClock(webHost.now);
  readonly machine: Machine;
  private readonly output: (text: string) => void;

  constructor(disk: Uint8Array, output: (text: string) => void, memory = "128M") {
    this.output = output;
    this.machine = new Machine({
      config: machineConfig({ engine: "interpret", memory }),
      disks: [{ storage: new MemoryBlockStorage(disk), serial: "test" }],
      clock: this.clock,
      host: { ...webHost, engineModule: engineModule() },
      trace: {},
      onSerial: (_port, byte) => this.output(String.fromCharCode(byte)),
      onConsole() {},
      onRoom() {},
    });
  }

  /** Runs until it ends or virtual time is `until`. */
  run(until: number): VmExit | undefined {
    this.clock.start();
    for (;;) {
      const outcome = this.machine.run(() => this.clock.now() >= until);
      if (outcome.kind === "exit") return outcome.exit;
      if (outcome.kind === "idle") {
        const milliseconds = (Math.min(outcome.wakeAt, until) - this.clock.now()) / 1e6;
        const word = new Int32Array(new SharedArrayBuffer(4));
        if (milliseconds > 0) Atomics.wait(word, 0, 0, milliseconds);
      }
      if (this.clock.now() >= until) {
        this.clock.stop();
        return undefined;
      }
    }
  }

  save(): Saved {
    const { memory } = this.machine.pc;
    return {
      state: structuredClone(this.machine.save()),
      ram: new Uint8Array(memory.memory.buffer, 0, memory.bytes).slice(),
    };
  }

  restore(saved: Saved): void {
    const { memory } = this.machine.pc;
    for (const { gpa, host, length } of memory.slots)
      memory.writableView(gpa, length)?.set(saved.ram.subarray(host, host + length));
    this.machine.restore(saved.state);
  }
}

test("Linux goes on in a new machine at each of several moments, and does not notice", options, async () => {
  assert.ok(guest !== undefined);
  const pattern = Uint8Array.from({ length: MIB }, (_, i) => (i * 31 + (i >> 9)) & 0xff);
  const script = [
    "echo up",
    "for i in 1 2 3 4 5 6; do dd if=/dev/vda bs=64k 2>/dev/null | sha256sum; sleep 0.2; done",
    "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo counted $i",
    "dmesg | grep -E 'nstable|stall|hrtimer: interrupt took|BUG:|WARNING:'",
    "echo done",
  ].join("\n");
  const initrd = await buildInitramfs({
    busybox: guest.busybox,
    modulesDir: guest.modulesDir,
    modules: VIRTIO_MODULES,
    script,
  });
  let text = "";
  const output = (more: string): void => {
    text += more;
  };
  let present = new TestMachine(pattern.slice(), output);
  present.machine.boot({
    bytes: readFileSync(guest.kernel),
    name: "vmlinuz",
    commandLine: "console=ttyS0 quiet panic=-1",
    initrd,
  });
  let exit: VmExit | undefined;
  let times = 0;
  for (const moment of MOMENTS) {
    exit = present.run(moment * 1e6);
    if (exit !== undefined) break;
    const saved = present.save();
    present = new TestMachine(pattern.slice(), output);
    present.restore(saved);
    // What was restored is what was saved.
    assert.deepEqual(present.machine.save(), saved.state);
    times++;
  }
  exit ??= present.run(120e9);
  assert.deepEqual(exit, { reason: "power-off" }, text);
  assert.ok(times >= 3, `the guest was done after ${times} moments`);
  const lines = text.split(/\r*\n/).filter((line) => line !== "" && !/Power down/.test(line));
  const digests = lines.filter((line) => /^[0-9a-f]{64} /.test(line));
  assert.equal(digests.length, 6, text);
  assert.equal(new Set(digests).size, 1, text);
  assert.deepEqual(
    lines.filter((line) => !digests.includes(line)),
    ["up", "counted 20000", "done"],
    text,
  );
});

test("a snapshot of another machine is refused", options, () => {
  const one = new TestMachine(new Uint8Array(512), () => undefined, "16M");
  const state = one.machine.save();
  const parts = state.fields.parts as { [name: string]: Section };
  const other = new TestMachine(new Uint8Array(512), () => undefined, "16M");
  const refused = (section: Section, message: RegExp): void => {
    assert.throws(
      () => other.machine.restore(section),
      (error) => error instanceof StateError && message.test(error.message),
    );
  };
  refused({ ...state, version: 99 }, /version 99/);
  refused({ ...state, fields: { ...state.fields, vcpus: [] } }, /0 vCPUs/);
  refused({ ...state, fields: { ...state.fields, parts: { ...parts, modem: parts.pic } } }, /a part modem/);
  const { rtc: _, ...missing } = parts;
  refused({ ...state, fields: { ...state.fields, parts: missing } }, /no part rtc/);
});
