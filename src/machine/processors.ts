// The processors of a machine as the rest of it sees them: all of them on this thread, or each on a thread of its own
// (src/machine/parallel/vcpu-group.ts).

import type { InitialCpuState } from "../boot/cpu-state.ts";
import { SkepError } from "../errors.ts";
import type { RegisterBank } from "../vmm/bus.ts";
import { restoreState, type Section, StateError, saveState } from "../vmm/state.ts";
import type { Vcpu } from "../vmm/vcpu.ts";
import type { RunOutcome, Vm } from "../vmm/vm.ts";
import type { MachineConfig } from "./config.ts";
import { setInitialState } from "./initial-state.ts";
import { handOver } from "./make-vcpu.ts";
import { type VcpuStatistics, vcpuStatistics } from "./statistics.ts";
import { answerVcpu, type VcpuAnswer, type VcpuRequest } from "./vcpu-control.ts";

/** A vCPU in a snapshot. */
export type VcpuSections = { readonly [part in "engine" | "apic" | "events"]: Section };

export interface Processors {
  readonly apicIds: readonly number[];
  /** Whether they run on threads of their own, while this one does other things. */
  readonly parallel: boolean;
  /** Threads that execute guest code. Where each vCPU has its own, one that the guest has not started has none. */
  readonly threads: number;
  /** Power-on, and what a BIOS does then. They stand still. */
  reset(): void;
  /** Puts the bootstrap processor where a kernel begins. */
  boot(state: InitialCpuState): void;
  /** Lets them run: time runs again. */
  begin(): void;
  /** Done when all of them stand still. */
  halt(): void;
  /** Runs the machine until it ends, has nothing to do, or `poll` gives true. */
  run(poll: () => boolean): RunOutcome;
  /** They will not be needed any more. */
  end(): void;
  /** Of each, with the anomalies that were counted elsewhere than in the machine's own log. */
  statistics(): readonly { readonly vcpu: VcpuStatistics; readonly anomalies: { readonly [kind: string]: number } }[];
  answer(cpu: number, request: VcpuRequest): VcpuAnswer;
  /** A serial port, by position, says whether its line status is as usual: that need not be asked of it then. */
  portIsUsual(position: number, usual: boolean): void;
  /** What a port (`KNOWN_PORT`) holds, where a read gives it without doing anything: likewise. */
  portReads(index: number, value: number | undefined): void;
  /** Where a device can keep registers for processors that have threads of their own; undefined: they have none. */
  registerBank(bank: number): RegisterBank | undefined;
  /** All of them stand still. */
  save(): readonly VcpuSections[];
  /** `time`: the virtual time at which they go on. */
  restore(sections: readonly VcpuSections[], time: number): void;
}

export function saveVcpu(vcpu: Vcpu): VcpuSections {
  return { engine: vcpu.engine.save(), apic: saveState(vcpu.apic), events: saveState(vcpu) };
}

/** The engine first: the TSC's offset before the deadlines that are measured with it. */
export function restoreVcpu(vcpu: Vcpu, sections: VcpuSections): void {
  vcpu.engine.check(sections.engine);
  vcpu.engine.restore(sections.engine);
  restoreState(vcpu.apic, sections.apic);
  restoreState(vcpu, sections.events);
}

export function checkCount(sections: readonly VcpuSections[], vcpus: number): void {
  if (sections.length !== vcpus)
    throw new StateError(`the snapshot has ${sections.length} vCPUs, and this machine ${vcpus}`);
}

export function noSuchVcpu(cpu: number, vcpus: number): SkepError {
  return new SkepError("config", `there is no vCPU ${cpu}: this machine has 0 to ${vcpus - 1}`);
}

/** Those that this thread runs. */
export class LocalProcessors implements Processors {
  private readonly vm: Vm;
  private readonly config: MachineConfig;

  constructor(vm: Vm, config: MachineConfig) {
    this.vm = vm;
    this.config = config;
    this.handOver();
  }

  get parallel(): boolean {
    return false;
  }

  get threads(): number {
    return 1;
  }

  get apicIds(): readonly number[] {
    return this.vm.vcpus.map(({ apic }) => apic.id);
  }

  reset(): void {
    this.vm.reset();
    this.handOver();
  }

  boot(state: InitialCpuState): void {
    setInitialState(this.vm.vcpus[0].engine, state);
  }

  begin(): void {}

  halt(): void {}

  run(poll: () => boolean): RunOutcome {
    return this.vm.run(poll);
  }

  end(): void {}

  statistics(): ReturnType<Processors["statistics"]> {
    return this.vm.vcpus.map((vcpu) => ({ vcpu: vcpuStatistics(vcpu), anomalies: {} }));
  }

  answer(cpu: number, request: VcpuRequest): VcpuAnswer {
    const { vcpus } = this.vm;
    const vcpu = vcpus[cpu];
    if (vcpu === undefined) throw noSuchVcpu(cpu, vcpus.length);
    return answerVcpu(vcpu, request);
  }

  portIsUsual(): void {}

  portReads(): void {}

  registerBank(): undefined {}

  private handOver(): void {
    for (const { id, apic } of this.vm.vcpus) handOver(apic, this.config, id === 0);
  }

  save(): readonly VcpuSections[] {
    return this.vm.vcpus.map(saveVcpu);
  }

  restore(sections: readonly VcpuSections[]): void {
    checkCount(sections, this.vm.vcpus.length);
    this.vm.vcpus.forEach((vcpu, n) => {
      restoreVcpu(vcpu, sections[n]);
    });
  }
}
