// A vCPU that the guest has not started, and that has no thread therefore, as it would be found there: in the state of power-on, with what has been
// posted to it since. It is made anew for each question, of the parts that its thread would make it of, around one engine that executes nothing
// and serves all of them, since an engine takes time and memory.

import type { Host } from "../../host/host.ts";
import { TSC_OFFSET } from "../../isa/state.ts";
import type { Clock } from "../../vmm/clock.ts";
import { TimerQueue } from "../../vmm/clock.ts";
import type { Engine } from "../../vmm/engine.ts";
import type { ApicBus } from "../../vmm/io/apic-bus.ts";
import type { IoAccess } from "../../vmm/io-space.ts";
import type { GuestRam } from "../../vmm/memory.ts";
import { REQUEST, VCPU } from "../../vmm/parallel/control-area.ts";
import { PostedInterrupts } from "../../vmm/parallel/remote-apic.ts";
import { encodeValue } from "../../vmm/parallel/vcpu-call.ts";
import type { VcpuLink } from "../../vmm/parallel/vcpu-link.ts";
import type { Section } from "../../vmm/state.ts";
import type { Vcpu } from "../../vmm/vcpu.ts";
import type { MachineConfig } from "../config.ts";
import { handOver, makeVcpu } from "../make-vcpu.ts";
import { saveVcpu, type VcpuSections } from "../processors.ts";

export interface UnstartedVcpuOptions {
  readonly config: MachineConfig;
  readonly host: Host;
  readonly clock: Clock;
  readonly memory: GuestRam;
}

/** What can have been posted to one that was not started, and stays posted for its thread. Its local APIC accepts neither vectors nor ExtINT. */
const HELD = REQUEST.NMI | REQUEST.PINS;

const nothing = (): void => {};
/** It executes nothing that would ask any of these. */
const IO: IoAccess = { readPort: () => 0, writePort: nothing, readMmio: () => 0, writeMmio: nothing };
const BUS: ApicBus = {
  sendIpi: nothing,
  endOfInterrupt: nothing,
  watchedVector: () => -1,
  watchedServed: nothing,
  identityChanged: nothing,
  acceptanceChanged: nothing,
};

export class UnstartedVcpus {
  private readonly options: UnstartedVcpuOptions;
  private engine: Engine | undefined;

  constructor(options: UnstartedVcpuOptions) {
    this.options = options;
  }

  /** As the vCPU is now, which was last reset at virtual time `resetAt`. It is good until the next one is made. */
  make(link: VcpuLink, resetAt: number): Vcpu {
    const { config, host, clock, memory } = this.options;
    const { engine } = this;
    const vcpu = makeVcpu(link.id, {
      config: { ...config, engine: "interpret" },
      host,
      clock,
      memory,
      timers: new TimerQueue(clock),
      io: IO,
      bus: BUS,
      anomalies: { anomaly: nothing },
      trace: {},
      acknowledgePic: () => 0,
      code: { protectPage: nothing, codeWritten: nothing },
      translator: undefined,
      sharesThread: false,
      ...(engine === undefined ? {} : { createEngine: () => engine }),
    });
    this.engine = vcpu.engine;
    vcpu.startTsc(resetAt);
    handOver(vcpu.apic, config, false);
    new PostedInterrupts(link, () => vcpu.apic, nothing).take(link.load(VCPU.REQUESTS) & HELD);
    return vcpu;
  }

  /**
   * Where `sections` are those of a vCPU that was not started either, what had been posted to it is posted again, and it needs no thread: the virtual
   * time at which it was last reset. Otherwise undefined: its thread is to restore them.
   */
  restore(link: VcpuLink, sections: VcpuSections): number | undefined {
    const offset = sections.engine.fields[TSC_OFFSET.name];
    const resetAt = typeof offset === "bigint" ? Number(BigInt.asUintN(64, -offset)) : Number.NaN;
    if (!Number.isSafeInteger(resetAt)) return undefined;
    const { fields: apic } = sections.apic;
    const pins = (apic.lvt as Section | undefined)?.fields;
    link.store(VCPU.LINT0, Number(pins?.lint0 === true));
    link.store(VCPU.LINT1, Number(pins?.lint1 === true));
    link.post(REQUEST.PINS | (sections.events.fields.nmiPending === true ? REQUEST.NMI : 0));
    return encodeValue(saveVcpu(this.make(link, resetAt))) === encodeValue(sections) ? resetAt : undefined;
  }
}
