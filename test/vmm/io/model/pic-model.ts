// The pair of 8259As of a PC, written plainly from the 8259A data sheet (231468) and ICH9 13.4 as a reference for tests: an array of eight
// inputs a chip, each a few booleans, and a walk in order of priority for every question.

interface Input {
  line: boolean;
  /** An edge that was seen, and not yet acknowledged. */
  edge: boolean;
  /** Level triggered (ELCR). */
  level: boolean;
  masked: boolean;
  inService: boolean;
}

class Chip {
  readonly inputs: Input[] = [];
  readonly isMaster: boolean;
  /** Initialization words, by number; word 0 is none. */
  words = [0, 0, 0, 0, 0];
  /** The word that comes next; 0: initialized, or never begun. */
  next = 0;
  initialized = false;
  lowest = 7;
  rotates = false;
  specialMask = false;
  readsService = false;
  polls = false;

  constructor(isMaster: boolean) {
    this.isMaster = isMaster;
    for (let n = 0; n < 8; n++)
      this.inputs.push({ line: false, edge: false, level: false, masked: false, inService: false });
  }

  private isRequested(input: Input): boolean {
    return input.level ? input.line : input.edge;
  }

  setLine(n: number, high: boolean): void {
    const input = this.inputs[n];
    if (high && !input.line) input.edge = true;
    if (!high) input.edge = false;
    input.line = high;
  }

  isCascade(n: number): boolean {
    const single = (this.words[1] & 2) !== 0;
    return this.isMaster && !single && ((this.words[3] >> n) & 1) === 1;
  }

  /** "Fully Nested Mode": the input that INT is raised for, or -1. */
  best(): number {
    if (!this.initialized) return -1;
    for (let n = 1; n <= 8; n++) {
      const number = (this.lowest + n) % 8;
      const input = this.inputs[number];
      const wants = this.isRequested(input) && !input.masked;
      const holdsBack = input.inService && !(this.specialMask && input.masked);
      if (holdsBack) {
        // "The Special Fully Nested Mode", a.
        const nests = (this.words[4] & 0x10) !== 0 && this.isCascade(number);
        return nests && wants ? number : -1;
      }
      if (wants) return number;
    }
    return -1;
  }

  take(n: number): void {
    this.inputs[n].edge = false;
    const automatic = (this.words[4] & 2) !== 0;
    if (!automatic) this.inputs[n].inService = true;
    else if (this.rotates) this.lowest = n;
  }

  private bits(of: (input: Input) => boolean): number {
    return this.inputs.reduce((value, input, n) => value | (of(input) ? 1 << n : 0), 0);
  }

  read(data: boolean): number {
    if (this.polls) {
      this.polls = false;
      const n = this.best();
      if (n < 0) return 0;
      this.take(n);
      return 0x80 + n;
    }
    if (data) return this.bits((input) => input.masked);
    if (this.readsService) return this.bits((input) => input.inService);
    return this.bits((input) => this.isRequested(input));
  }

  write(data: boolean, value: number): void {
    if (!data && value & 0x10) this.begin(value);
    else if (!data && value & 8) this.command3(value);
    else if (!data) this.command2(value);
    else if (this.next === 0)
      this.inputs.forEach((input, n) => {
        input.masked = ((value >> n) & 1) === 1;
      });
    else this.initialize(value);
  }

  /** "Initialization Command Words (ICWS)". */
  private begin(value: number): void {
    for (const input of this.inputs) {
      input.edge = false;
      input.masked = false;
      input.inService = false;
    }
    this.lowest = 7;
    this.specialMask = false;
    this.readsService = false;
    this.polls = false;
    this.initialized = false;
    this.words[1] = value;
    if (!(value & 1)) this.words[4] = 0;
    this.next = 2;
  }

  private initialize(value: number): void {
    this.words[this.next] = value;
    const single = (this.words[1] & 2) !== 0;
    const fourth = (this.words[1] & 1) !== 0;
    if (this.next === 2 && !single) this.next = 3;
    else if (this.next < 4 && fourth) this.next = 4;
    else {
      this.next = 0;
      this.initialized = true;
    }
  }

  private command3(value: number): void {
    if (value & 0x40) this.specialMask = (value & 0x20) !== 0;
    this.polls = (value & 4) !== 0;
    if (!this.polls && value & 2) this.readsService = (value & 1) !== 0;
  }

  private command2(value: number): void {
    const n = value & 7;
    const rotate = (value & 0x80) !== 0;
    const specific = (value & 0x40) !== 0;
    const end = (value & 0x20) !== 0;
    if (!end && !specific) this.rotates = rotate;
    else if (!end) {
      if (rotate) this.lowest = n;
    } else {
      let ended = -1;
      if (specific) ended = n;
      else
        for (let m = 8; m >= 1; m--) {
          const input = this.inputs[(this.lowest + m) % 8];
          if (input.inService && !(this.specialMask && input.masked)) ended = (this.lowest + m) % 8;
        }
      if (ended < 0) return;
      this.inputs[ended].inService = false;
      if (rotate) this.lowest = ended;
    }
  }
}

export class PicModel {
  private readonly master = new Chip(true);
  private readonly slave = new Chip(false);
  intr = false;
  /** What INTR was raised for last, and has not been acknowledged: the master's priority resolver keeps it. */
  private resolved = -1;

  private settle(): void {
    this.master.setLine(2, this.slave.best() >= 0);
    const n = this.master.best();
    if (n >= 0) this.resolved = n;
    if (!this.master.initialized) this.resolved = -1;
    this.intr = n >= 0;
  }

  setIrq(irq: number, high: boolean): void {
    (irq < 8 ? this.master : this.slave).setLine(irq % 8, high);
    this.settle();
  }

  /** The two INTA cycles of an 8086 system. */
  acknowledge(): number {
    let n = this.master.best();
    let vector: number;
    const { resolved } = this;
    if (n < 0 && resolved >= 0 && this.master.isCascade(resolved) && !this.master.inputs[resolved].masked) n = resolved;
    if (n < 0) vector = (this.master.words[2] & 0xf8) + 7;
    else {
      this.master.take(n);
      if (!this.master.isCascade(n)) vector = (this.master.words[2] & 0xf8) + n;
      else if (n !== 2 || (this.slave.words[3] & 7) !== 2) vector = 0xff;
      else {
        const m = this.slave.best();
        if (m >= 0) this.slave.take(m);
        vector = (this.slave.words[2] & 0xf8) + (m < 0 ? 7 : m);
        // The slave's INT falls with the cycle.
        this.master.setLine(2, false);
      }
    }
    this.resolved = -1;
    this.settle();
    return vector;
  }

  read(port: number): number {
    let value = 0xff;
    if (port === 0x20 || port === 0x21) value = this.master.read(port === 0x21);
    if (port === 0xa0 || port === 0xa1) {
      if (this.slave.polls) this.master.setLine(2, false);
      value = this.slave.read(port === 0xa1);
    }
    if (port === 0x4d0 || port === 0x4d1) {
      const chip = port === 0x4d0 ? this.master : this.slave;
      value = chip.inputs.reduce((bits, input, n) => bits | (input.level ? 1 << n : 0), 0);
    }
    this.settle();
    return value;
  }

  write(port: number, value: number): void {
    if (port === 0x20 || port === 0x21) this.master.write(port === 0x21, value);
    if (port === 0xa0 || port === 0xa1) this.slave.write(port === 0xa1, value);
    if (port === 0x4d0 || port === 0x4d1) {
      const chip = port === 0x4d0 ? this.master : this.slave;
      // IRQ 0, 1, 2, 8 and 13 stay edge triggered.
      const fixed = port === 0x4d0 ? [0, 1, 2] : [0, 5];
      chip.inputs.forEach((input, n) => {
        input.level = ((value >> n) & 1) === 1 && !fixed.includes(n);
      });
    }
    this.settle();
  }
}
