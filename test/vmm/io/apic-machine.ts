// A machine of interrupt controllers for tests: some local APICs, an I/O APIC and an MSI receiver on one bus, on a clock moved by
// hand. The vCPUs only note what they are told.

import { ManualClock, TimerQueue } from "../../../src/vmm/clock.ts";
import { ApicMode } from "../../../src/vmm/io/destination.ts";
import { InterruptRouter } from "../../../src/vmm/io/interrupt-router.ts";
import { IoApic } from "../../../src/vmm/io/ioapic.ts";
import { LocalApic, type LocalApicOptions } from "../../../src/vmm/io/lapic.ts";
import { MsiReceiver } from "../../../src/vmm/io/msi.ts";

/** Crystal of 25 MHz: a count is 40 ns. */
export const TIMER_FREQUENCY = 25_000_000;
/** The guest's TSC runs at 1 GHz, so a TSC value is its time in nanoseconds. */
export const tscToNs = (tsc: bigint) => Number(tsc);

export interface MachineOptions {
  readonly ids?: readonly number[];
  readonly extendedDestinationIds?: boolean;
  readonly apic?: Partial<LocalApicOptions>;
}

export class ApicMachine {
  readonly clock = new ManualClock();
  readonly timers = new TimerQueue(this.clock);
  readonly router = new InterruptRouter();
  readonly anomalies: string[] = [];
  /** What vCPUs were told, as `nmi 0`, `startup 1 154`; `interruptPending` is only counted. */
  readonly events: string[] = [];
  readonly traces: string[] = [];
  kicks = 0;
  readonly apics: LocalApic[];
  readonly ioapic: IoApic;
  readonly msi: MsiReceiver;

  constructor(options: MachineOptions = {}) {
    const { ids = [0], extendedDestinationIds = false } = options;
    const anomalies = { anomaly: (source: string, what: string) => void this.anomalies.push(`${source}: ${what}`) };
    this.apics = ids.map((id, position) => {
      const apic = new LocalApic({
        id,
        bootstrap: position === 0,
        timers: this.timers,
        bus: this.router,
        anomalies,
        timerFrequency: TIMER_FREQUENCY,
        tscToNs,
        trace: (line) => void this.traces.push(line),
        events: {
          interruptPending: () => void this.kicks++,
          nmi: () => void this.events.push(`nmi ${id}`),
          init: () => void this.events.push(`init ${id}`),
          startup: (vector) => void this.events.push(`startup ${id} ${vector}`),
        },
        ...options.apic,
      });
      this.router.addLocalApic(apic);
      return apic;
    });
    this.ioapic = new IoApic({
      bus: this.router,
      anomalies,
      extendedDestinationIds,
      trace: (line) => void this.traces.push(line),
    });
    this.router.addIoApic(this.ioapic);
    this.msi = new MsiReceiver({ bus: this.router, anomalies, extendedDestinationIds });
  }

  get apic(): LocalApic {
    return this.apics[0];
  }

  /** Moves time and runs the timers that are due, as a run loop does at the latest at `ns` from now. */
  advance(ns: number): void {
    this.clock.advance(ns);
    this.timers.run(this.clock.now());
  }

  /** Advances from deadline to deadline, so that no timer runs late. */
  advancePrecisely(ns: number): void {
    const end = this.clock.now() + ns;
    while (this.timers.next() <= end) {
      this.clock.set(Math.max(this.clock.now(), Math.ceil(this.timers.next())));
      this.timers.run(this.clock.now());
    }
    this.clock.set(end);
  }

  /** Enables all local APICs by software, with spurious vector FFH. */
  enable(): this {
    for (const apic of this.apics) {
      if (apic.mode === ApicMode.X2APIC) apic.writeX2apic(0x0f, 0x1ffn);
      else apic.writeMmio(0xf0, 4, 0x1ff);
    }
    return this;
  }

  /** Puts all local APICs into x2APIC mode. */
  x2apic(): this {
    for (const apic of this.apics) apic.writeBase(apic.readBase() | (1n << 10n));
    return this;
  }

  read(offset: number, position = 0): number {
    return this.apics[position].readMmio(offset, 4);
  }

  write(offset: number, value: number, position = 0): void {
    this.apics[position].writeMmio(offset, 4, value >>> 0);
  }

  /** Takes and ends whatever is pending at one APIC, in the order it is given; at most `limit` interrupts. */
  drain(position = 0, limit = 300): number[] {
    const taken: number[] = [];
    const apic = this.apics[position];
    while (apic.pendingVector() >= 0 && taken.length < limit) {
      taken.push(apic.acknowledge());
      this.eoi(position);
    }
    return taken;
  }

  eoi(position = 0): void {
    if (this.apics[position].mode === ApicMode.X2APIC) this.apics[position].writeX2apic(0x0b, 0n);
    else this.write(0xb0, 0, position);
  }

  /** Which APICs have `vector` requested. */
  requestedAt(vector: number): number[] {
    return this.apics.filter((apic) => apic.pendingVector() === vector).map((apic) => apic.id);
  }

  // ---- The I/O APIC ----

  ioRead(index: number): number {
    this.ioapic.writeMmio(0, 4, index);
    return this.ioapic.readMmio(0x10, 4) >>> 0;
  }

  ioWrite(index: number, value: number): void {
    this.ioapic.writeMmio(0, 4, index);
    this.ioapic.writeMmio(0x10, 4, value >>> 0);
  }

  /** Programs a redirection entry, the high half first. */
  redirect(pin: number, low: number, destination = 0): void {
    this.ioWrite(0x11 + pin * 2, (destination << 24) >>> 0);
    this.ioWrite(0x10 + pin * 2, low);
  }
}
