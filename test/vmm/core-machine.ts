// A core with fake engines and an 8259 pair, on a clock moved by hand.

import { type Clock, ManualClock, TimerQueue } from "../../src/vmm/clock.ts";
import { InterruptRouter } from "../../src/vmm/io/interrupt-router.ts";
import { Pic } from "../../src/vmm/io/pic.ts";
import { IoBus } from "../../src/vmm/io-space.ts";
import { type PostedRequests, Vcpu } from "../../src/vmm/vcpu.ts";
import { Vm } from "../../src/vmm/vm.ts";
import { FakeEngine } from "./fake-engine.ts";

/** 1 MiB of RAM; nothing is written to it. */
const SLOTS = [{ gpa: 0, length: 0x100000, host: 0x1000, writable: true }];

export class CoreMachine {
  readonly clock = new ManualClock();
  readonly timers: TimerQueue;
  readonly router = new InterruptRouter();
  readonly counts = new Map<string, number>();
  readonly anomalies = {
    anomaly: (source: string, what: string) => {
      const key = `${source}: ${what}`;
      this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    },
  };
  readonly io = new IoBus(this.anomalies);
  readonly pic = new Pic({ anomalies: this.anomalies, intr: (asserted) => this.router.setLint(0, asserted) });
  readonly vm: Vm;
  readonly engines: FakeEngine[] = [];

  constructor(
    cpus = 1,
    features: readonly string[] = ["apic", "x2apic", "tsc_deadline_timer"],
    time?: Clock,
    posted?: PostedRequests,
    ignoreUnknownMsrs = false,
  ) {
    const clock = time ?? this.clock;
    this.timers = new TimerQueue(clock);
    this.vm = new Vm({ clock, timers: this.timers, router: this.router, trace: {} });
    for (let id = 0; id < cpus; id++) {
      this.vm.addVcpu(
        new Vcpu({
          id,
          apicId: id,
          bootstrap: id === 0,
          clock,
          timers: this.timers,
          io: this.io,
          bus: this.router,
          anomalies: this.anomalies,
          features: new Set(features),
          ignoreUnknownMsrs,
          physicalAddressBits: 46,
          slots: SLOTS,
          trace: {},
          acknowledgePic: () => this.pic.acknowledge(),
          random32: () => 4,
          sharesThread: cpus > 1,
          ...(posted === undefined ? {} : { posted }),
          code: { protectPage: () => {}, codeWritten: () => {} },
          createEngine: (host) => {
            const engine = new FakeEngine(host);
            this.engines.push(engine);
            return engine;
          },
        }),
      );
    }
  }

  get vcpu(): Vcpu {
    return this.vm.vcpus[0];
  }

  get engine(): FakeEngine {
    return this.engines[0];
  }

  /** Enables the local APIC by software, with LINT0 as ExtINT. */
  virtualWire(): this {
    for (const vcpu of this.vm.vcpus) {
      vcpu.apic.writeMmio(0xf0, 4, 0x1ff);
      vcpu.apic.writeMmio(0x350, 4, 0x700);
    }
    return this;
  }

  /** The 8259 pair at vectors 30H and 38H, all inputs open. */
  initPic(): this {
    for (const [port, base, cascade] of [
      [0x20, 0x30, 4],
      [0xa0, 0x38, 2],
    ]) {
      this.pic.writePort(port, 1, 0x11);
      this.pic.writePort(port + 1, 1, base);
      this.pic.writePort(port + 1, 1, cascade);
      this.pic.writePort(port + 1, 1, 1);
      this.pic.writePort(port + 1, 1, 0);
    }
    return this;
  }

  run(slices = Number.POSITIVE_INFINITY): ReturnType<Vm["run"]> {
    let left = slices;
    return this.vm.run(() => --left <= 0);
  }
}
