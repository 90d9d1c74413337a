// A PC with a kernel in it, ready to run: loading, reset, statistics, snapshots of everything but RAM.

import { BootError } from "../boot/errors.ts";
import { loadKernel } from "../boot/kernel.ts";
import { SkepError } from "../errors.ts";
import { buildFirmware } from "../firmware/firmware.ts";
import type { MachineClock } from "../vmm/clock.ts";
import { restoreState, type Section, StateError, type StateValue, saveState } from "../vmm/state.ts";
import type { RunOutcome } from "../vmm/vm.ts";
import type { KernelConfig } from "./config.ts";
import { Pc, type PcOptions } from "./pc.ts";
import { checkCount, type VcpuSections } from "./processors.ts";
import { type MachineStatistics, machineStatistics } from "./statistics.ts";

const SEED_BYTES = 32;
const SNAPSHOT = { kind: "machine", version: 1 } as const;

export interface MachineOptions extends PcOptions {
  readonly clock: MachineClock;
}

export class Machine {
  readonly pc: Pc;
  private readonly options: MachineOptions;

  constructor(options: MachineOptions) {
    this.options = options;
    this.pc = new Pc(options);
  }

  /** Puts firmware tables and a kernel into memory and the processor at its beginning. A file that cannot be booted is a SkepError. */
  boot(kernel: KernelConfig): void {
    const { processors } = this.pc;
    const seed = new Uint8Array(SEED_BYTES);
    this.options.host.randomFill(seed);
    try {
      const firmware = buildFirmware(this.pc.firmwareConfig());
      const image = loadKernel(kernel.bytes, {
        e820: firmware.e820,
        rsdp: firmware.rsdp,
        commandLine: kernel.commandLine,
        kernelName: kernel.name,
        rngSeed: seed,
        ...(kernel.initrd === undefined ? {} : { initrd: kernel.initrd }),
        ...(kernel.modules === undefined ? {} : { modules: kernel.modules }),
      });
      for (const { gpa, length } of image.zeros) this.place(gpa, length, (view) => view.fill(0));
      for (const { gpa, bytes } of [...firmware.writes, ...image.writes])
        this.place(gpa, bytes.length, (view) => view.set(bytes));
      processors.boot(image.cpu);
    } catch (error) {
      if (error instanceof BootError) throw new SkepError("boot", `${kernel.name}: ${error.message}`, { cause: error });
      if (error instanceof RangeError) throw new SkepError("config", error.message, { cause: error });
      throw error;
    }
  }

  /** Power-on state of everything but time, and RAM as a BIOS leaves it; a kernel has to be booted again. */
  reset(): void {
    this.pc.reset();
    this.pc.memory.clear();
  }

  /** The processors may run; the clock has been started. */
  begin(): void {
    this.pc.processors.begin();
  }

  /** Makes the processors stand still; the clock is to be stopped then. */
  halt(): void {
    this.pc.processors.halt();
  }

  run(poll: () => boolean): RunOutcome {
    return this.pc.processors.run(poll);
  }

  /** The machine will not run again. */
  end(): void {
    this.pc.processors.end();
  }

  statistics(): MachineStatistics {
    return machineStatistics(this.pc);
  }

  /** Everything but RAM and the contents of disks. The clock must be stopped, and no run in progress. */
  save(): Section {
    // Processors first: what they still have to say reaches the devices before those are saved.
    const vcpus = this.pc.processors.save().map((sections) => ({ ...sections }));
    const parts: { [name: string]: StateValue } = {};
    for (const [name, part] of this.pc.parts()) parts[name] = saveState(part);
    return { ...SNAPSHOT, fields: { time: this.options.clock.now(), vcpus, parts } };
  }

  /** Restores what `save` of an equal machine gave; RAM has been restored before. */
  restore(section: Section): void {
    if (section.kind !== SNAPSHOT.kind || section.version !== SNAPSHOT.version)
      throw new StateError(`section ${section.kind} version ${section.version} is no machine that this program reads`);
    const { time, vcpus, parts } = section.fields as {
      time: number;
      vcpus: VcpuSections[];
      parts: { [name: string]: Section };
    };
    checkCount(vcpus, this.pc.processors.apicIds.length);
    const mine = this.pc.parts();
    const strange = Object.keys(parts).find((name) => !mine.has(name));
    if (strange !== undefined) throw new StateError(`the snapshot has a part ${strange}, and this machine has not`);
    this.options.clock.setTime(time);
    // Processors first: the TSC's offset before the deadlines that are measured with it.
    this.pc.processors.restore(vcpus, time);
    for (const [name, part] of mine) {
      if (parts[name] === undefined) throw new StateError(`the snapshot has no part ${name}`);
      restoreState(part, parts[name]);
    }
  }

  private place(gpa: number, length: number, fill: (view: Uint8Array) => void): void {
    if (length === 0) return;
    const view = this.pc.memory.writableView(gpa, length);
    if (view === undefined) throw new SkepError("internal", `nothing can be loaded at 0x${gpa.toString(16)}`);
    fill(view);
    this.pc.memory.written(gpa, length);
  }
}
