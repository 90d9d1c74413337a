// A local APIC written plainly from SDM Vol. 3A chapter 11, as a reference for tests: sets for bit maps, every rule spelled out where it
// applies, no tables shared with the program. Time does not pass for it: the timer is registers only.

export type Event = "nmi" | "init" | `startup ${number}`;

/** What the model's APICs are connected to. */
export interface ModelBus {
  ipi(
    source: number,
    shorthand: number,
    mode: number,
    vector: number,
    destination: number,
    wide: boolean,
    logical: boolean,
  ): void;
  eoi(vector: number): void;
  accepts(): void;
}

export const MODE = { DISABLED: 0, XAPIC: 1, X2APIC: 2 } as const;

const MASKED = 0x10000;
const LEVEL = 0x8000;
const REMOTE_IRR = 0x4000;
/** LVT positions by register: 2FH, 32H to 37H. */
const CMCI = 0x2f;
const TIMER = 0x32;
const THERMAL = 0x33;
const PERFORMANCE = 0x34;
const LINT0 = 0x35;
const LINT1 = 0x36;
const ERROR = 0x37;

/** 11.5.1, figure 11-8: the bits of each entry that software can write. */
function lvtBits(register: number): number {
  if (register === TIMER) return 0x700ff;
  if (register === ERROR) return 0x100ff;
  if (register === LINT0 || register === LINT1) return 0x1a7ff;
  return 0x107ff;
}

function max(set: Set<number>): number {
  let highest = -1;
  for (const member of set) if (member > highest) highest = member;
  return highest;
}

function word(set: Set<number>, n: number): number {
  let bits = 0;
  for (const member of set) if (member >> 5 === n) bits |= 1 << (member & 31);
  return bits >>> 0;
}

export class LocalApicModel {
  readonly id: number;
  readonly events: Event[] = [];
  base: bigint;
  tpr = 0;
  ldr = 0;
  dfr = 0xffffffff;
  svr = 0xff;
  esr = 0;
  errors = 0;
  icrLow = 0;
  icrHigh = 0;
  initialCount = 0;
  divide = 0;
  irr = new Set<number>();
  isr = new Set<number>();
  tmr = new Set<number>();
  lvt = new Map<number, number>();
  pins = [false, false];
  extIntMessage = false;
  private readonly bus: ModelBus;
  private readonly position: number;

  constructor(bus: ModelBus, position: number, id: number) {
    this.bus = bus;
    this.position = position;
    this.id = id;
    this.base = position === 0 ? 0xfee00900n : 0xfee00800n;
    this.clear();
  }

  /** 11.4.7.1: state after RESET, and after INIT but for id and base. */
  clear(): void {
    this.tpr = 0;
    this.ldr = 0;
    this.dfr = 0xffffffff;
    this.svr = 0xff;
    this.esr = 0;
    this.errors = 0;
    this.icrLow = 0;
    this.icrHigh = 0;
    this.initialCount = 0;
    this.divide = 0;
    this.irr = new Set();
    this.isr = new Set();
    this.tmr = new Set();
    for (const register of [CMCI, TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR]) this.lvt.set(register, MASKED);
    this.extIntMessage = false;
  }

  get mode(): number {
    if (!(this.base & 0x800n)) return MODE.DISABLED;
    return this.base & 0x400n ? MODE.X2APIC : MODE.XAPIC;
  }

  get accepts(): boolean {
    return this.mode !== MODE.DISABLED && (this.svr & 0x100) !== 0;
  }

  /** Table 11-5 and figure 11-27; 40 address bits. */
  writeBase(value: bigint): boolean {
    if (value & ~0xfffffffd00n) return false;
    const enabled = (value & 0x800n) !== 0n;
    const extended = (value & 0x400n) !== 0n;
    if (extended && !enabled) return false;
    const before = this.mode;
    if (before === MODE.DISABLED && extended) return false;
    if (before === MODE.X2APIC && enabled && !extended) return false;
    this.base = value;
    if (!enabled && before !== MODE.DISABLED) this.clear();
    if (extended && before === MODE.XAPIC) this.icrHigh = 0;
    return true;
  }

  // ---- 11.8: priorities, acceptance ----

  ppr(): number {
    const service = Math.max(0, max(this.isr));
    return this.tpr >> 4 >= service >> 4 ? this.tpr : service & 0xf0;
  }

  /** 11.6.2.4. */
  apr(): number {
    const tpr = this.tpr >> 4;
    const irrv = Math.max(0, max(this.irr)) >> 4;
    const isrv = Math.max(0, max(this.isr)) >> 4;
    if (tpr >= irrv && tpr > isrv) return this.tpr;
    return Math.max(tpr, irrv, isrv) << 4;
  }

  pending(): number {
    if (this.mode === MODE.DISABLED) return -1;
    const vector = max(this.irr);
    return vector >= 0 && vector >> 4 > this.ppr() >> 4 ? vector : -1;
  }

  acknowledge(): number {
    const vector = this.pending();
    if (vector < 0) return this.svr & 0xff;
    this.irr.delete(vector);
    this.isr.add(vector);
    return vector;
  }

  extInt(): boolean {
    if (this.extIntMessage) return true;
    if (this.mode === MODE.DISABLED) return this.pins[0];
    return [LINT0, LINT1].some((register, pin) => {
      const entry = this.lvt.get(register) as number;
      return this.pins[pin] && !(entry & MASKED) && ((entry >> 8) & 7) === 7;
    });
  }

  deliver(mode: number, vector: number, level: boolean): boolean {
    if (this.mode === MODE.DISABLED) return false;
    switch (mode) {
      case 0:
      case 1:
        return this.request(vector, level, false);
      case 2:
        return true;
      case 4:
        this.events.push("nmi");
        return true;
      case 5:
        this.events.push("init");
        return true;
      case 6:
        this.events.push(`startup ${vector}`);
        return true;
      case 7:
        this.extIntMessage ||= this.accepts;
        return this.accepts;
      default:
        return false;
    }
  }

  private request(vector: number, level: boolean, fromError: boolean): boolean {
    if (!this.accepts) return false;
    if (vector < 16) {
      this.error(0x40, fromError);
      return false;
    }
    if (level) this.tmr.add(vector);
    else this.tmr.delete(vector);
    this.irr.add(vector);
    return true;
  }

  private error(bit: number, fromError: boolean): void {
    const known = (this.errors & bit) !== 0;
    this.errors |= bit;
    if (!known && !fromError) this.fire(ERROR);
  }

  // ---- 11.5: local interrupts ----

  private isLevel(register: number, entry: number): boolean {
    return register === LINT0 && ((entry >> 8) & 7) === 0 && (entry & LEVEL) !== 0;
  }

  /** The source of an entry has an interrupt. */
  fire(register: number): void {
    const entry = this.lvt.get(register) as number;
    if (entry & MASKED) return;
    if (register === PERFORMANCE) this.lvt.set(register, entry | MASKED);
    const mode = (entry >> 8) & 7;
    const isPin = register === LINT0 || register === LINT1;
    if (mode === 4) this.events.push("nmi");
    if (mode === 5 && isPin) this.events.push("init");
    if (mode !== 0) return;
    const level = this.isLevel(register, entry);
    if (level && entry & REMOTE_IRR) return;
    if (this.request(entry & 0xff, level, register === ERROR) && level) this.lvt.set(register, entry | REMOTE_IRR);
  }

  setPin(pin: 0 | 1, high: boolean): void {
    const rose = high && !this.pins[pin];
    this.pins[pin] = high;
    if (!rose) return;
    if (this.mode !== MODE.DISABLED) this.fire(pin === 0 ? LINT0 : LINT1);
    else if (pin === 1) this.events.push("nmi");
  }

  /** A pulse of a source; of an INTR pin it asks the 8259 once, whatever the pin's level. */
  trigger(register: number): void {
    const entry = this.lvt.get(register) as number;
    const isPin = register === LINT0 || register === LINT1;
    if (this.mode === MODE.DISABLED) {
      if (register === LINT0) this.extIntMessage = true;
      if (register === LINT1) this.events.push("nmi");
    } else if (isPin && !(entry & MASKED) && ((entry >> 8) & 7) === 7) this.extIntMessage = true;
    else this.fire(register);
  }

  private sampleLint0(): void {
    if (this.pins[0] && this.isLevel(LINT0, this.lvt.get(LINT0) as number)) this.fire(LINT0);
  }

  private endOfInterrupt(): void {
    const vector = max(this.isr);
    if (vector < 0) return;
    this.isr.delete(vector);
    if (!this.tmr.has(vector)) return;
    const entry = this.lvt.get(LINT0) as number;
    if (entry & REMOTE_IRR && (entry & 0xff) === vector) {
      this.lvt.set(LINT0, entry & ~REMOTE_IRR);
      this.sampleLint0();
    }
    if (!(this.svr & 0x1000)) this.bus.eoi(vector);
  }

  // ---- Registers ----

  /** Table 11-1. */
  private exists(register: number): boolean {
    if (register === 2 || register === 3 || register === CMCI || register === 0x3e) return true;
    return (register >= 8 && register <= 0x28) || (register >= 0x30 && register <= 0x39);
  }

  private isReadOnly(register: number): boolean {
    return [2, 3, 9, 0xa, 0xc, 0x39].includes(register) || (register >= 0x10 && register <= 0x27);
  }

  readPage(offset: number, size: number): number {
    if (this.mode !== MODE.XAPIC || (offset & 15) + size > 4) return 0;
    const register = offset >> 4;
    if (!this.exists(register)) {
      this.error(0x80, false);
      return 0;
    }
    const value = this.value(register);
    let shifted = value >>> ((offset & 15) * 8);
    if (size < 4) shifted &= (1 << (size * 8)) - 1;
    return shifted >>> 0;
  }

  writePage(offset: number, size: number, value: number): void {
    if (this.mode !== MODE.XAPIC || size !== 4 || offset & 15) return;
    const register = offset >> 4;
    if (!this.exists(register)) this.error(0x80, false);
    else if (!this.isReadOnly(register)) this.write(register, value);
  }

  /** Table 11-6; undefined is #GP(0). */
  readMsr(register: number): bigint | undefined {
    const absent = [9, 0xb, 0xc, 0xe, 0x31].includes(register);
    if (this.mode !== MODE.X2APIC || !this.exists(register) || absent) return undefined;
    const value = BigInt(this.value(register));
    return register === 0x30 ? value | (BigInt(this.icrHigh) << 32n) : value;
  }

  writeMsr(register: number, value: bigint): boolean {
    if (this.mode !== MODE.X2APIC) return false;
    if (register !== 0x3f && (!this.exists(register) || this.isReadOnly(register))) return false;
    if ([0xd, 0xe, 0x31].includes(register)) return false;
    const low = Number(value & 0xffffffffn);
    if (register === 0x30) {
      if (low & 0xfff32000) return false;
      this.icrHigh = Number(value >> 32n);
      this.write(register, low);
      return true;
    }
    let legal = 0xffffffff;
    if (register === 8 || register === 0x3f) legal = 0xff;
    if (register === 0xb || register === 0x28) legal = 0;
    if (register === 0xf) legal = 0x13ff;
    if (register === 0x3e) legal = 0xb;
    if (this.lvt.has(register)) {
      // Delivery status, and the remote IRR of the pins, are read-only and no reason for a fault.
      legal = lvtBits(register) | 0x1000 | (register === LINT0 || register === LINT1 ? REMOTE_IRR : 0);
    }
    if (value >> 32n || (low & ~legal) !== 0) return false;
    this.write(register, low);
    return true;
  }

  private value(register: number): number {
    const entry = this.lvt.get(register);
    if (entry !== undefined) return entry;
    if (register >= 0x10 && register <= 0x17) return word(this.isr, register - 0x10);
    if (register >= 0x18 && register <= 0x1f) return word(this.tmr, register - 0x18);
    if (register >= 0x20 && register <= 0x27) return word(this.irr, register - 0x20);
    const wide = this.mode === MODE.X2APIC;
    switch (register) {
      case 2:
        return wide ? this.id : (this.id * 0x1000000) % 2 ** 32;
      case 3:
        // Version 14H, seven LVT entries, EOI broadcasts can be suppressed.
        return 0x01060014;
      case 8:
        return this.tpr;
      case 0xa:
        return this.ppr();
      case 0xd:
        // 11.12.10.2
        return wide ? (((this.id >> 4) << 16) | (1 << (this.id & 15))) >>> 0 : this.ldr;
      case 0xe:
        return this.dfr;
      case 0xf:
        return this.svr;
      case 0x28:
        return this.esr;
      case 0x30:
        return this.icrLow;
      case 0x31:
        return this.icrHigh;
      case 0x38:
        return this.initialCount;
      case 0x3e:
        return this.divide;
      default:
        return 0;
    }
  }

  /** The logical id as destinations are compared with it. */
  logical(): number {
    return this.value(0xd);
  }

  private write(register: number, value: number): void {
    if (this.lvt.has(register)) {
      this.writeLvt(register, value);
      return;
    }
    switch (register) {
      case 8:
        this.tpr = value & 0xff;
        break;
      case 0xb:
        this.endOfInterrupt();
        break;
      case 0xd:
        this.ldr = (value & 0xff000000) >>> 0;
        break;
      case 0xe:
        this.dfr = (value | 0x0fffffff) >>> 0;
        break;
      case 0xf: {
        const enabled = (value & 0x100) !== 0;
        const before = (this.svr & 0x100) !== 0;
        this.svr = value & 0x13ff;
        // 11.4.7.2
        if (!enabled) for (const [entry, bits] of this.lvt) this.lvt.set(entry, bits | MASKED);
        if (enabled && !before) this.bus.accepts();
        break;
      }
      case 0x28:
        this.esr = this.errors;
        this.errors = 0;
        break;
      case 0x30:
        this.icrLow = value & 0xccfff;
        this.send();
        break;
      case 0x31:
        this.icrHigh = (value & 0xff000000) >>> 0;
        break;
      case 0x38:
        if (((this.lvt.get(TIMER) as number) & 0x40000) === 0) this.initialCount = value;
        break;
      case 0x3e:
        this.divide = value & 0xb;
        break;
      case 0x3f:
        if (value < 16) this.error(0x20, false);
        else this.request(value, false, false);
        break;
    }
  }

  private writeLvt(register: number, written: number): void {
    let value = written & lvtBits(register);
    const before = this.lvt.get(register) as number;
    if (!(this.svr & 0x100)) value |= MASKED;
    if (this.isLevel(register, value)) value |= before & REMOTE_IRR;
    // 11.5.4.1: entering or leaving TSC-deadline mode disarms the timer.
    const mode = value & 0x60000;
    if (register === TIMER && mode !== (before & 0x60000) && (mode | before) & 0x40000) this.initialCount = 0;
    this.lvt.set(register, value);
    if (register === LINT0) this.sampleLint0();
  }

  /** 11.6.1 with tables 11-3 and 11-4. */
  private send(): void {
    const low = this.icrLow;
    const mode = (low >> 8) & 7;
    const vector = low & 0xff;
    const logical = (low & 0x800) !== 0;
    const assert = (low & 0x4000) !== 0;
    const level = (low & 0x8000) !== 0;
    const shorthand = (low >> 18) & 3;
    if (mode === 7 || mode === 3) return;
    if (mode !== 0 && (shorthand === 1 || shorthand === 2)) return;
    if (mode !== 6 && level && !assert) return;
    if (mode <= 1 && vector < 16) {
      this.error(0x20, false);
      return;
    }
    const wide = this.mode === MODE.X2APIC;
    const destination = wide ? this.icrHigh : this.icrHigh >>> 24;
    this.bus.ipi(this.position, shorthand, mode, vector, destination, wide, logical);
  }
}
