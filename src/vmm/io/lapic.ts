// The local APIC of one vCPU, in xAPIC and x2APIC mode.
// SDM Vol. 3A chapter 11 (11.4 local APIC, 11.5 local interrupts, 11.6 IPIs, 11.8 handling interrupts, 11.12 x2APIC).
//
// What the guest writes is validated before it is kept, so every field here is an effective value; both ways to a register, the page
// and the MSRs, end in the same `read` and `write`. The vCPU asks (`pendingVector`, `extIntPending`) and takes (`accept`,
// `acknowledge`); it is told through `VcpuEvents` when to ask. An 8259's interrupt comes before the APIC's, and its vector is asked
// of the 8259 only when the vCPU takes it.

import type { AccessSize, AnomalyLog, MmioHandler } from "../bus.ts";
import type { TimerQueue } from "../clock.ts";
import type { Schema, Stateful } from "../state.ts";
import { addressOfBase, BASE_BOOTSTRAP, BASE_RESET, modeOfBase, refusalOfBase } from "./apic-base.ts";
import type { ApicBus, ApicPort, VcpuEvents } from "./apic-bus.ts";
import { ApicMode, x2apicLogicalId } from "./destination.ts";
import { ERROR_STATUS_SCHEMA, ErrorStatus } from "./error-status.ts";
import { decodeIcr, dispositionOf, ICR_DELIVERY_STATUS, ICR_WRITABLE } from "./icr.ts";
import {
  BROADCAST_8,
  BROADCAST_32,
  DeliveryMode,
  FIRST_LEGAL_VECTOR,
  type InterruptMessage,
} from "./interrupt-message.ts";
import { INTERRUPT_REQUESTS_SCHEMA, InterruptRequests } from "./interrupt-requests.ts";
import {
  ApicError,
  LVT_MASKED,
  LVT_RESET,
  Lvt,
  lvtOfRegister,
  REGISTERS,
  Register,
  SVR_RESET,
  SVR_SOFTWARE_ENABLE,
  SVR_SUPPRESS_EOI_BROADCAST,
  VERSION_VALUE,
} from "./lapic-registers.ts";
import { LAPIC_TIMER_SCHEMA, LapicTimer } from "./lapic-timer.ts";
import { LOCAL_VECTOR_TABLE_SCHEMA, LocalVectorTable } from "./local-vector-table.ts";

export interface LocalApicOptions {
  readonly id: number;
  readonly bootstrap: boolean;
  readonly timers: TimerQueue;
  readonly bus: ApicBus;
  readonly events: VcpuEvents;
  readonly anomalies: AnomalyLog;
  /** Frequency of the timer's input in Hz (CPUID 15H.ECX). */
  readonly timerFrequency: number;
  readonly tscToNs: (tsc: bigint) => number;
  /** CPUID.01H:ECX[21] and [24]. Both true by default. */
  readonly x2apic?: boolean;
  readonly tscDeadline?: boolean;
  /** MAXPHYADDR, which bounds IA32_APIC_BASE. */
  readonly physicalAddressBits?: number;
  /** The register page moved, or came or went with the mode: it answers at `base` in xAPIC mode only. */
  readonly onBaseChanged?: (base: number, mode: number) => void;
  /** Gets a line at each change of IRR and ISR. */
  readonly trace?: (line: string) => void;
}

const TSC_DEADLINE_MODE = 1 << 18;

export class LocalApic implements Stateful, MmioHandler, ApicPort {
  readonly schema: Schema = {
    kind: "lapic",
    version: 2,
    fields: {
      base: "u64",
      logicalId: "u32",
      dfr: "u32",
      svr: "u32",
      errors: { section: ERROR_STATUS_SCHEMA },
      icrLow: "u32",
      icrHigh: "u32",
      extIntMessage: "bool",
      requests: { section: INTERRUPT_REQUESTS_SCHEMA },
      lvt: { section: LOCAL_VECTOR_TABLE_SCHEMA },
      timer: { section: LAPIC_TIMER_SCHEMA },
    },
    derived: ["id", "options", "source", "mode", "statistics"],
  };

  readonly id: number;
  /** Disabled, xAPIC or x2APIC: follows from `base`. */
  mode: number = ApicMode.XAPIC;
  readonly statistics = {
    ipisSent: 0,
    ipisReceived: 0,
    timerInterrupts: 0,
    interruptsAccepted: 0,
    spuriousInterrupts: 0,
  };

  private base = BASE_RESET;
  /** The LDR of xAPIC mode; in x2APIC mode it follows from the id. */
  private logicalId = 0;
  dfr = 0xffffffff;
  private svr = SVR_RESET;
  private readonly errors = new ErrorStatus();
  private icrLow = 0;
  private icrHigh = 0;
  /** An ExtINT that came as a message (I/O APIC pin 0 in virtual wire mode) or as a pulse, and not as the level of a pin. */
  private extIntMessage = false;
  private readonly requests: InterruptRequests;
  private readonly lvt: LocalVectorTable;
  private readonly timer: LapicTimer;

  private readonly options: LocalApicOptions;
  private readonly source: string;

  constructor(options: LocalApicOptions) {
    this.options = options;
    this.id = options.id;
    this.source = `lapic${options.id}`;
    this.requests = new InterruptRequests((what, vector) => options.trace?.(`${this.source}: ${what} ${vector}`));
    this.lvt = new LocalVectorTable({
      requestVector: (vector, level, fromErrorLvt) => this.requestVector(vector, level, fromErrorLvt),
      deliver: (mode, vector, level) => this.deliver(mode, vector, level),
      extInt: () => options.events.interruptPending(),
      anomaly: (what) => this.anomaly(what),
    });
    this.timer = new LapicTimer({
      name: `${this.source} timer`,
      timers: options.timers,
      frequency: options.timerFrequency,
      tscToNs: options.tscToNs,
      expired: () => {
        if (this.lvt.fire(Lvt.TIMER)) this.statistics.timerInterrupts++;
      },
    });
    this.reset();
  }

  // ---- Reset and mode (11.4.7, 11.12.5) ----

  /** Power-up or RESET: xAPIC mode at the default address. */
  reset(): void {
    this.base = BASE_RESET | (this.options.bootstrap ? BASE_BOOTSTRAP : 0n);
    this.baseChanged();
    this.resetRegisters();
  }

  /** INIT: as RESET, but id, mode and address stay (11.4.7.3, 11.12.5.1). Called by the vCPU when it takes the INIT. */
  init(): void {
    this.resetRegisters();
  }

  /** IA32_APIC_BASE. */
  readBase(): bigint {
    return this.base;
  }

  /** False means #GP(0), and nothing has changed. */
  writeBase(value: bigint): boolean {
    const { physicalAddressBits = 40, x2apic = true } = this.options;
    const refusal = refusalOfBase(value, this.mode, physicalAddressBits, x2apic);
    if (refusal !== undefined) return this.refuse(refusal);
    if (value === this.base) return true;
    const before = this.mode;
    this.base = value;
    this.baseChanged();
    if (this.mode === before) return true;
    // 11.4.3: what was set up before a global disable is lost. The high half of the ICR is redefined by x2APIC mode.
    if (this.mode === ApicMode.DISABLED) this.resetRegisters();
    if (this.mode === ApicMode.X2APIC) this.icrHigh = 0;
    // LINT0 may have become INTR.
    if (this.extIntPending()) this.options.events.interruptPending();
    return true;
  }

  /** The logical destination register as the present mode shows it. */
  get ldr(): number {
    return this.mode === ApicMode.X2APIC ? x2apicLogicalId(this.id) : this.logicalId;
  }

  get softwareEnabled(): boolean {
    return this.mode !== ApicMode.DISABLED && (this.svr & SVR_SOFTWARE_ENABLE) !== 0;
  }

  // ---- The vCPU's side (11.8) ----

  /** The task priority register, whose bits 7:4 are CR8 (11.8.6). */
  get tpr(): number {
    return this.requests.tpr;
  }

  setTpr(value: number): void {
    this.requests.tpr = value & 0xff;
    this.notify();
  }

  readCr8(): number {
    return this.requests.tpr >>> 4;
  }

  /** `high` is the upper half of a 64-bit operand. False means #GP(0): only bits 3:0 exist. */
  writeCr8(value: number, high = 0): boolean {
    if (high !== 0 || (value & ~0xf) !== 0) return false;
    this.setTpr(value << 4);
    return true;
  }

  arbitrationPriority(): number {
    return this.requests.arbitrationPriority();
  }

  /** The vector that the vCPU may take now: requested, and of a class above the processor priority's; -1 if none. */
  pendingVector(): number {
    return this.mode === ApicMode.DISABLED ? -1 : this.requests.pending();
  }

  /** The vCPU takes `vector`, which `pendingVector` gave: from IRR to ISR. */
  accept(vector: number): void {
    if (this.requests.accept(vector)) this.statistics.interruptsAccepted++;
    else this.anomaly("accepted a vector that is not requested");
  }

  /** An interrupt acknowledge cycle: takes the pending vector, or gives the spurious vector, which is not in service (11.9). */
  acknowledge(): number {
    const vector = this.pendingVector();
    if (vector < 0) {
      this.statistics.spuriousInterrupts++;
      return this.svr & 0xff;
    }
    this.accept(vector);
    return vector;
  }

  /** Whether the 8259's INTR reaches this vCPU and is raised; its vector is to be asked of the 8259. */
  extIntPending(): boolean {
    // 11.4.3: with the APIC disabled, LINT0 is the processor's INTR pin.
    return this.extIntMessage || (this.mode === ApicMode.DISABLED ? this.lvt.lint0 : this.lvt.passesExtInt());
  }

  /** The vCPU has acknowledged at the 8259. */
  extIntAccepted(): void {
    this.extIntMessage = false;
  }

  // ---- Interrupts from outside ----

  setLint(pin: 0 | 1, asserted: boolean): void {
    if (!this.lvt.setPin(pin, asserted)) return;
    // 11.4.3: with the APIC disabled the pins are the processor's INTR and NMI.
    if (this.mode !== ApicMode.DISABLED) this.lvt.fire(pin === 0 ? Lvt.LINT0 : Lvt.LINT1);
    else if (pin === 0) this.options.events.interruptPending();
    else this.options.events.nmi();
  }

  /** The level of a pin, whatever its entry makes of it. */
  lintAsserted(pin: 0 | 1): boolean {
    return pin === 0 ? this.lvt.lint0 : this.lvt.lint1;
  }

  triggerLocal(lvt: number): void {
    if (this.mode === ApicMode.DISABLED) {
      // 11.4.3: the pins are INTR and NMI.
      if (lvt === Lvt.LINT0) this.requestExtInt();
      else if (lvt === Lvt.LINT1) this.options.events.nmi();
    } else if (this.lvt.isExtInt(lvt)) this.requestExtInt();
    else this.lvt.fire(lvt);
  }

  assertInit(): void {
    this.options.events.init();
  }

  deliver(mode: number, vector: number, level: boolean): boolean {
    if (this.mode === ApicMode.DISABLED) return false;
    switch (mode) {
      case DeliveryMode.FIXED:
      case DeliveryMode.LOWEST_PRIORITY:
        return this.requestVector(vector, level, false);
      case DeliveryMode.NMI:
        this.options.events.nmi();
        return true;
      case DeliveryMode.INIT:
        this.assertInit();
        return true;
      case DeliveryMode.STARTUP:
        this.options.events.startup(vector);
        return true;
      case DeliveryMode.EXTINT:
        // 11.4.7.2: disabled by software it responds to INIT, NMI, SMI and SIPI messages.
        if (!this.softwareEnabled) return false;
        this.requestExtInt();
        return true;
      case DeliveryMode.SMI:
        this.anomaly("SMI (there is no system management mode)");
        return true;
      default:
        this.anomaly(`delivery mode ${mode}`);
        return false;
    }
  }

  countIpi(): void {
    this.statistics.ipisReceived++;
  }

  // ---- Registers ----

  /** Only naturally placed bytes of a register's 32 bits can be read; the gap to the next register reads as zero (11.4.1). */
  readMmio(offset: number, size: AccessSize): number {
    if (this.mode !== ApicMode.XAPIC) {
      this.anomaly("register page read outside xAPIC mode");
      return 0;
    }
    const byte = offset & 15;
    if (byte + size > 4) {
      this.anomaly("read across or beside a register");
      return 0;
    }
    const index = (offset & 0xfff) >>> 4;
    const register = REGISTERS[index];
    if (register === undefined || register.xapic === "none") {
      this.error(ApicError.ILLEGAL_REGISTER, false);
      return 0;
    }
    if (register.xapic === "wo") return 0;
    const value = this.read(index) >>> (byte * 8);
    return size === 4 ? value : value & (size === 1 ? 0xff : 0xffff);
  }

  /** Only whole, aligned registers can be written (11.4.1); anything else is ignored. */
  writeMmio(offset: number, size: AccessSize, value: number): void {
    if (this.mode !== ApicMode.XAPIC) {
      this.anomaly("register page written outside xAPIC mode");
      return;
    }
    if (size !== 4 || (offset & 15) !== 0) {
      this.anomaly("write of a part of a register");
      return;
    }
    const index = (offset & 0xfff) >>> 4;
    const register = REGISTERS[index];
    if (register === undefined || register.xapic === "none") this.error(ApicError.ILLEGAL_REGISTER, false);
    else if (register.xapic === "ro") this.anomaly(`write to read-only ${register.name}`);
    else this.write(index, (value & register.writable) >>> 0);
  }

  /** RDMSR of 800H + `index`; undefined means #GP(0) (11.12.1.3). */
  readX2apic(index: number): bigint | undefined {
    const register = REGISTERS[index];
    if (
      this.mode !== ApicMode.X2APIC ||
      register === undefined ||
      register.x2apic === "none" ||
      register.x2apic === "wo"
    ) {
      this.anomaly("RDMSR of no readable x2APIC register");
      return undefined;
    }
    const low = BigInt(this.read(index));
    return index === Register.ICR_LOW ? low | (BigInt(this.icrHigh) << 32n) : low;
  }

  /** WRMSR of 800H + `index`; false means #GP(0): no such register, read-only, or a reserved bit set (11.12.1.3). */
  writeX2apic(index: number, value: bigint): boolean {
    return this.writeX2apicHalves(index, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** The same with EAX and EDX as they are, unsigned; the vCPU's way, as an EOI is one of these. */
  writeX2apicHalves(index: number, low: number, high: number): boolean {
    const register = REGISTERS[index];
    if (
      this.mode !== ApicMode.X2APIC ||
      register === undefined ||
      register.x2apic === "none" ||
      register.x2apic === "ro"
    ) {
      return this.refuse("WRMSR of no writable x2APIC register");
    }
    if (index === Register.ICR_LOW) {
      if ((low & ~(ICR_WRITABLE | ICR_DELIVERY_STATUS)) !== 0) return this.refuse("reserved bit in ICR");
      this.icrHigh = high;
    } else {
      const allowed = register.zeroOnly ? 0 : register.writable | register.ignored;
      if (high !== 0 || (low & ~allowed) !== 0) return this.refuse(`reserved bit in ${register.name}`);
      if (this.options.tscDeadline === false && index === Register.LVT_TIMER && low & TSC_DEADLINE_MODE) {
        return this.refuse("reserved timer mode");
      }
    }
    this.write(index, (low & register.writable) >>> 0);
    return true;
  }

  /** IA32_TSC_DEADLINE. */
  readTscDeadline(): bigint {
    return this.timer.readDeadline();
  }

  writeTscDeadline(tsc: bigint): void {
    this.timer.writeDeadline(tsc);
  }

  /** To be called when the guest's TSC was set to another value. */
  tscChanged(): void {
    this.timer.tscChanged();
  }

  afterRestore(): void {
    this.timer.resume(this.lvt.read(Lvt.TIMER));
    this.baseChanged();
    this.options.events.interruptPending();
  }

  private read(index: number): number {
    const lvt = lvtOfRegister(index);
    if (lvt >= 0) return this.lvt.read(lvt);
    if (index >= Register.ISR && index < Register.TMR) return this.requests.isr[index - Register.ISR];
    if (index >= Register.TMR && index < Register.IRR) return this.requests.tmr[index - Register.TMR];
    if (index >= Register.IRR && index < Register.ESR) return this.requests.irr[index - Register.IRR];
    switch (index) {
      case Register.ID:
        return this.mode === ApicMode.X2APIC ? this.id : (this.id << 24) >>> 0;
      case Register.VERSION:
        return VERSION_VALUE;
      case Register.TPR:
        return this.requests.tpr;
      case Register.PPR:
        return this.requests.processorPriority();
      case Register.LDR:
        return this.ldr;
      case Register.DFR:
        return this.dfr;
      case Register.SVR:
        return this.svr;
      case Register.ESR:
        return this.errors.readable;
      case Register.ICR_LOW:
        return this.icrLow;
      case Register.ICR_HIGH:
        return this.icrHigh;
      case Register.INITIAL_COUNT:
        return this.timer.initialCount;
      case Register.CURRENT_COUNT:
        return this.timer.currentCount();
      case Register.DIVIDE_CONFIGURATION:
        return this.timer.divideConfiguration;
      default:
        return 0;
    }
  }

  /** `value` has writable bits only. */
  private write(index: number, value: number): void {
    const lvt = lvtOfRegister(index);
    if (lvt >= 0) {
      this.writeLvt(lvt, value);
      return;
    }
    switch (index) {
      case Register.TPR:
        this.setTpr(value);
        break;
      case Register.EOI:
        this.endOfInterrupt();
        break;
      case Register.LDR:
        this.logicalId = value;
        this.options.bus.identityChanged();
        break;
      case Register.DFR:
        this.dfr = (value | 0x0fffffff) >>> 0;
        this.options.bus.identityChanged();
        break;
      case Register.SVR:
        this.writeSvr(value);
        break;
      case Register.ESR:
        this.errors.written();
        break;
      case Register.ICR_LOW:
        // Delivery is immediate, so the status bit never reads as pending.
        this.icrLow = (value & ICR_WRITABLE) >>> 0;
        this.sendIpi();
        break;
      case Register.ICR_HIGH:
        this.icrHigh = value;
        break;
      case Register.INITIAL_COUNT:
        this.timer.writeInitialCount(value);
        break;
      case Register.DIVIDE_CONFIGURATION:
        this.timer.writeDivideConfiguration(value);
        break;
      case Register.SELF_IPI:
        this.sendFixed(value, () => this.requestVector(value, false, false));
        break;
    }
  }

  private writeSvr(value: number): void {
    const toggled = ((this.svr ^ value) & SVR_SOFTWARE_ENABLE) !== 0;
    if (toggled && !(value & SVR_SOFTWARE_ENABLE)) {
      // 11.4.7.2: disabling sets all masks. What is requested or in service stays.
      this.timer.setLvt(this.lvt.read(Lvt.TIMER) | LVT_MASKED);
      this.timer.stop();
      this.lvt.maskAll();
    }
    this.svr = value;
    if (!toggled) return;
    if (value & SVR_SOFTWARE_ENABLE) {
      this.timer.restartPeriodic();
      this.options.bus.acceptanceChanged();
    } else this.options.bus.identityChanged();
  }

  private writeLvt(lvt: number, written: number): void {
    // 11.4.7.2: while the APIC is disabled by software the masks cannot be cleared.
    let value = this.softwareEnabled ? written : written | LVT_MASKED;
    if (lvt === Lvt.TIMER) {
      if (this.options.tscDeadline === false) value &= ~TSC_DEADLINE_MODE;
      this.timer.setLvt(value);
    }
    this.lvt.write(lvt, value);
  }

  // ---- Delivery ----

  private endOfInterrupt(): void {
    const vector = this.requests.endOfInterrupt();
    if (vector < 0) {
      this.anomaly("EOI with nothing in service");
      return;
    }
    if (this.requests.isLevel(vector)) {
      this.lvt.endOfInterrupt(vector);
      if (!(this.svr & SVR_SUPPRESS_EOI_BROADCAST)) this.options.bus.endOfInterrupt(vector);
    } else if (vector === this.options.bus.watchedVector()) this.options.bus.watchedServed(vector);
    this.notify();
  }

  /** 11.5.1, ExtINT: the processor asks the 8259, as if INTR had been raised; whether a pin still is then does not count. */
  private requestExtInt(): void {
    this.extIntMessage = true;
    this.options.events.interruptPending();
  }

  private requestVector(vector: number, level: boolean, fromErrorLvt: boolean): boolean {
    if (!this.softwareEnabled) return false;
    if (vector < FIRST_LEGAL_VECTOR) {
      this.error(ApicError.RECEIVE_ILLEGAL_VECTOR, fromErrorLvt);
      return false;
    }
    if (this.requests.triggerDiffers(vector, level)) this.anomaly("vector used edge and level triggered at once");
    this.requests.request(vector, level);
    this.notify();
    return true;
  }

  private sendIpi(): void {
    const command = decodeIcr(this.icrLow);
    const disposition = dispositionOf(command);
    if (disposition !== "send") {
      if (disposition === "invalid") this.anomaly("invalid combination in the ICR");
      return;
    }
    const extended = this.mode === ApicMode.X2APIC;
    // Table 11-3, note 2: an IPI goes out edge triggered whatever the trigger bit says.
    const message: InterruptMessage = {
      destination: extended ? this.icrHigh : this.icrHigh >>> 24,
      broadcast: extended ? BROADCAST_32 : BROADCAST_8,
      logical: command.logical,
      mode: command.mode,
      vector: command.vector,
      level: false,
    };
    const send = () => {
      this.statistics.ipisSent++;
      this.options.bus.sendIpi(this.id, command.shorthand, message);
    };
    if (command.mode === DeliveryMode.FIXED || command.mode === DeliveryMode.LOWEST_PRIORITY)
      this.sendFixed(command.vector, send);
    else send();
  }

  private sendFixed(vector: number, send: () => void): void {
    if (vector < FIRST_LEGAL_VECTOR) this.error(ApicError.SEND_ILLEGAL_VECTOR, false);
    else send();
  }

  private error(bit: number, fromErrorLvt: boolean): void {
    if (this.errors.note(bit) && !fromErrorLvt) this.lvt.fire(Lvt.ERROR);
  }

  private notify(): void {
    if (this.pendingVector() >= 0) this.options.events.interruptPending();
  }

  private resetRegisters(): void {
    this.logicalId = 0;
    this.dfr = 0xffffffff;
    this.svr = SVR_RESET;
    this.errors.reset();
    this.icrLow = 0;
    this.icrHigh = 0;
    this.requests.reset();
    this.lvt.reset();
    this.extIntMessage = false;
    this.timer.reset();
    this.timer.setLvt(LVT_RESET);
    this.options.bus.identityChanged();
  }

  private baseChanged(): void {
    this.mode = modeOfBase(this.base);
    this.options.bus.identityChanged();
    this.options.onBaseChanged?.(addressOfBase(this.base), this.mode);
  }

  private refuse(what: string): false {
    this.anomaly(what);
    return false;
  }

  private anomaly(what: string): void {
    this.options.anomalies.anomaly(this.source, what);
  }
}
