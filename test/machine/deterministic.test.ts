// A deterministic machine that is saved in the middle of its boot goes on alike in every machine that is made from what was saved: the same
// output and the same number of instructions on each processor. (A machine that ran on without a break may differ from those: where a slice
// ends follows from how code was cut into blocks, and a new machine cuts what was patched anew.)

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { standardTranslator } from "../../src/cpu/translator/standard-translator.ts";
import { webHost } from "../../src/host/host.ts";
import { buildInitramfs } from "../../src/host/node/initramfs.ts";
import { machineConfig } from "../../src/machine/config.ts";
import { Machine } from "../../src/machine/machine.ts";
import { SeededHost } from "../../src/machine/seeded-host.ts";
import { InstructionClock } from "../../src/vmm/instruction-clock.ts";
import type { Section } from "../../src/vmm/state.ts";
import type { VmExit } from "../../src/vmm/vm.ts";
import { cachedGuest } from "../api/guest.ts";

const guest = await cachedGuest();
const options = guest === undefined ? { skip: "Debian's guest is not in the cache" } : { timeout: 240_000 };
const SCRIPT =
  "cat /proc/interrupts; for i in 1 2; do (sha256sum /bin/busybox; head -c 8 /dev/urandom | hexdump) & done; wait; dmesg";

interface Result {
  readonly exit: VmExit;
  readonly text: string;
  readonly instructions: readonly number[];
}

interface Saved {
  readonly state: Section;
  readonly ram: Uint8Array;
}

class Booting {
  text = "";
  readonly machine: Machine;

  constructor(cpus: number) {
    this.machine = new Machine({
      config: machineConfig({ memory: "128M", cpus, engine: "translate", deterministic: 7 }),
      disks: [],
      clock: new InstructionClock(),
      host: new SeededHost({ ...webHost, engineModule: engineModule() }, 7),
      translator: standardTranslator(),
      trace: {},
      onSerial: (_port, byte) => {
        this.text += String.fromCharCode(byte);
      },
      onConsole() {},
      onRoom() {},
    });
  }

  save(): Saved {
    const { memory } = this.machine.pc;
    const ram = new Uint8Array(memory.memory.buffer, 0, memory.bytes).slice();
    return { state: structuredClone(this.machine.save()), ram };
  }

  restore({ state, ram }: Saved): this {
    const { memory } = this.machine.pc;
    for (const { gpa, host, length } of memory.slots)
      memory.writableView(gpa, length)?.set(ram.subarray(host, host + length));
    this.machine.restore(state);
    assert.deepEqual(this.machine.save(), state);
    return this;
  }

  /** So many rounds of the vCPUs. */
  rounds(count: number): void {
    let left = count;
    assert.equal(this.machine.run(() => --left <= 0).kind, "yield");
  }

  finish(): Result {
    const outcome = this.machine.run(() => false);
    assert.ok(outcome.kind === "exit");
    const instructions = this.machine.pc.vm.vcpus.map((vcpu) => vcpu.engine.retired());
    return { exit: outcome.exit, text: this.text, instructions };
  }
}

for (const [cpus, rounds] of [[3, 6000]] as const) {
  test(`${cpus} vCPUs: what is saved in mid-boot goes on alike each time`, options, async () => {
    assert.ok(guest !== undefined);
    const initrd = await buildInitramfs({ busybox: guest.busybox, script: SCRIPT });
    const first = new Booting(cpus);
    first.machine.boot({
      bytes: readFileSync(guest.kernel),
      name: "vmlinuz",
      commandLine: "console=ttyS0 quiet panic=-1",
      initrd,
    });
    first.rounds(rounds);
    const saved = first.save();
    const results = [1, 2].map(() => new Booting(cpus).restore(saved).finish());
    assert.deepEqual(results[0].exit, { reason: "power-off" }, results[0].text);
    assert.deepEqual(results[1], results[0]);
    // The first machine may be a few instructions elsewhere, and comes to the same end.
    assert.deepEqual(first.finish().exit, { reason: "power-off" });
  });
}
