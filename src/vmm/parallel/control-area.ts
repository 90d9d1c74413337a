// The memory by which the threads of one machine work together: what each vCPU is asked for, where it is, which interrupts wait for it, what it
// asks of the thread that runs the devices. All of it 32-bit words that are worked with Atomics, so that every store is seen by every thread
// in one order (ECMAScript, "Memory Model": sequentially consistent atomics). After KVM's run page and the posted-interrupt descriptor of
// SDM Vol. 3C 30.6.
//
// The area is a block for the machine and one for each vCPU; words that different threads write lie in different cache lines of 64 bytes.

const LINE = 16;

/** Words of the machine's block. */
export const GLOBAL = {
  VCPUS: 0,
  /** What all vCPUs are to do: a `PHASE`. */
  PHASE: 1,
  /** How the machine ended for a vCPU's sake: an `ENDED`. */
  ENDED: 2,
  /** Virtual time: at host time ORIGIN it is BASE (64-bit floating point each). Changed only while no vCPU runs. */
  CLOCK_BASE: LINE,
  CLOCK_ORIGIN: LINE + 2,
  /** Counts changes of what destinations depend on: id, mode, LDR, DFR of any local APIC. */
  APIC_GENERATION: 2 * LINE,
  /** Counts how often a vCPU left the state DEAF. */
  WAKES: 3 * LINE,
  /** By the flag of a posted port's status (`PostedPort`): not zero while it is as usual. */
  USUAL: 4 * LINE,
  /** The edge-triggered vector whose EOI the devices' thread wants to know of, or -1. */
  WATCHED_VECTOR: 5 * LINE,
  /** Counts the writes of vCPUs to devices, posted or not. */
  WRITES_TICKET: 6 * LINE,
  /** Registers whose value is known (`setKnown`). */
  KNOWN: 7 * LINE,
} as const;

/** Words of a vCPU's block. */
export const VCPU = {
  /** What the vCPU is to look at before it executes more: `REQUEST` bits, and the vector that goes with STARTUP (`STARTUP_VECTOR_SHIFT`). It takes
   *  them all at once; asleep, it waits on this word. */
  REQUESTS: 0,
  /** Posted interrupts, a bit a vector: those that are edge triggered (8 words), which are nearly all and so go with the request word. */
  POSTED_EDGE: 1,
  /** Where it is: a `RUN_STATE`. Its own thread writes it. */
  RUN_STATE: LINE,
  /** Counts orders of the machine's thread: changes of phase, and calls. Parked, the vCPU waits on this word. */
  ORDERS: 2 * LINE,
  /** The pins LINT0 and LINT1: count of their changes, so that the lowest bit is the level. */
  LINT0: 2 * LINE + 1,
  LINT1: 2 * LINE + 2,
  /** Posted interrupts that are level triggered (8 words). */
  POSTED_LEVEL: 3 * LINE,
  /** What others have to know of the local APIC (`ApicIdentity`, and what arbitration compares). */
  APIC_MODE: 4 * LINE,
  APIC_LDR: 4 * LINE + 1,
  APIC_DFR: 4 * LINE + 2,
  APIC_ENABLED: 4 * LINE + 3,
  APIC_PRIORITY: 4 * LINE + 4,
  /** An access that the devices' thread answers: a `TURN`, then an `ACCESS`, its address, size and value. */
  EXIT_TURN: 5 * LINE,
  EXIT_ACCESS: 5 * LINE + 1,
  EXIT_ADDRESS_LOW: 5 * LINE + 2,
  EXIT_ADDRESS_HIGH: 5 * LINE + 3,
  EXIT_BYTES: 5 * LINE + 4,
  EXIT_VALUE: 5 * LINE + 5,
  /** News for the devices' thread that nobody waits for: `NEWS` bits, 0 when all was done, and the vectors of EOIs (8 words). */
  NEWS: 6 * LINE,
  EOIS: 6 * LINE + 1,
  WATCHED: 6 * LINE + 9,
  /** Writes that nobody waits for: entries ever written and taken. */
  WRITES_POSTED: 7 * LINE,
  WRITES_TAKEN: 8 * LINE,
  /** Two queues of ranges of guest memory (`RangeQueue`): code that others have in a page, and code that others changed. */
  PROTECT: 9 * LINE,
  WRITTEN: 11 * LINE,
  /** A call (`VcpuCall`): the number of what is asked, 0 when it is done; the length of argument or result in the transfer area. */
  CALL: 13 * LINE,
  CALL_LENGTH: 13 * LINE + 1,
  CALL_FAILED: 13 * LINE + 2,
  IPIS_RECEIVED: 14 * LINE,
  /** Entries of the queues, 2 words each. */
  PROTECT_RANGES: 15 * LINE,
  WRITTEN_RANGES: 15 * LINE + 256,
  /** WRITES_MAX entries of 4 words: address low; its high bits and the size; value; ticket (`posted-writes.ts`). */
  WRITES: 1024,
  WORDS: 1024 + 4 * 4096,
} as const;

/** Words of a bank of registers: 64 with what they hold; a bit for each of them that is not to be asked for (2 words); the virtual time, as 64-bit
 *  integer, from which on they are. */
export const BANK_WORDS = { ANSWERS: 64, UNTIL: 66, WORDS: 68 } as const;
export const REGISTER_BANKS = 272;

/** Some dozens of a console's lines: the devices' thread can be without a processor for milliseconds. */
export const WRITES_MAX = 4096;
export const RANGES_MAX = 128;
const GLOBAL_BYTES = 4096;
const BANKS_BYTES = REGISTER_BANKS * BANK_WORDS.WORDS * 4;
/** Where the vCPUs' blocks begin. */
const BLOCKS = Math.ceil((GLOBAL_BYTES + BANKS_BYTES) / GLOBAL_BYTES) * GLOBAL_BYTES;
/** Where arguments and results of calls lie, by their vCPU. */
export const TRANSFER_BYTES = 1 << 16;
const VCPU_BYTES = VCPU.WORDS * 4 + TRANSFER_BYTES;

export const PHASE = { PARK: 0, RUN: 1, END: 2 } as const;
export const ENDED = { NO: 0, TRIPLE_FAULT: 1 } as const;

/**
 *   absent    no thread runs it yet; it waits for a start-up IPI
 *   parked    its thread stands still, until the phase is RUN
 *   looking   its thread decides what comes next
 *   running   it executes guest code, or an access of it is being answered
 *   asleep    halted, until something is posted or its next timer is due
 *   deaf      asleep in a way that no maskable interrupt ends
 *   gone      its thread has come to its end
 */
export const RUN_STATE = { ABSENT: 0, PARKED: 1, LOOKING: 2, RUNNING: 3, ASLEEP: 4, DEAF: 5, GONE: 6 } as const;

export const REQUEST = {
  /** POSTED_EDGE or POSTED_LEVEL holds vectors. */
  INTERRUPTS: 1 << 0,
  NMI: 1 << 1,
  INIT: 1 << 2,
  STARTUP: 1 << 3,
  /** LINT0 or LINT1 changed. */
  PINS: 1 << 4,
  /** A message with delivery mode ExtINT. */
  EXTINT: 1 << 5,
  /** The local interrupt LINT1 is to be fired. */
  LOCAL_LINT1: 1 << 6,
  SMI: 1 << 7,
  /** PROTECT or WRITTEN holds ranges. */
  CODE: 1 << 8,
  /** ORDERS changed. */
  ORDER: 1 << 9,
} as const;

/** The vector of a start-up IPI is in the request word's highest byte: it comes, goes, and is taken with its request. */
export const STARTUP_VECTOR_SHIFT = 24;

export const TURN = { NOBODY: 0, DEVICES: 1, VCPU: 2 } as const;
export const ACCESS = { PORT_READ: 0, PORT_WRITE: 1, MMIO_READ: 2, MMIO_WRITE: 3, ACKNOWLEDGE: 4 } as const;
export const NEWS = {
  /** EOIS holds vectors. */
  EOI: 1 << 0,
  /** The local APIC began to accept interrupts. */
  ACCEPTS: 1 << 1,
  /** EOI of the watched vector, which is in WATCHED. */
  WATCHED: 1 << 2,
  /** The devices' thread is about it. */
  TAKEN: 1 << 3,
} as const;

/** Wakes the thread that runs the devices; it looks at all news and exits then. */
export interface Doorbell {
  ring(): void;
}

/** Makes a vCPU that executes guest code come back soon, from any thread. */
export type Kick = () => void;

export class ControlArea {
  readonly memory: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly vcpus: number;
  private readonly clockWords: Float64Array;
  private readonly doubleWords: BigInt64Array;

  /** A new area for `vcpus`, or one that another thread has made. */
  constructor(from: number | SharedArrayBuffer) {
    this.memory = typeof from === "number" ? new SharedArrayBuffer(BLOCKS + from * VCPU_BYTES) : from;
    this.words = new Int32Array(this.memory);
    this.clockWords = new Float64Array(this.memory, GLOBAL.CLOCK_BASE * 4, 2);
    this.doubleWords = new BigInt64Array(this.memory);
    if (typeof from === "number") this.words[GLOBAL.VCPUS] = from;
    this.vcpus = this.words[GLOBAL.VCPUS];
  }

  /** Index in `words` of a vCPU's block. */
  block(vcpu: number): number {
    return (BLOCKS + vcpu * VCPU_BYTES) / 4;
  }

  /** Index in `words` of a bank of registers, below REGISTER_BANKS. */
  registerBank(bank: number): number {
    return GLOBAL_BYTES / 4 + bank * BANK_WORDS.WORDS;
  }

  /** The virtual time until which the answers of the bank at an index in `words` are right. */
  heldUntil(at: number): bigint {
    return Atomics.load(this.doubleWords, (at + BANK_WORDS.UNTIL) / 2);
  }

  holdUntil(at: number, time: bigint): void {
    Atomics.store(this.doubleWords, (at + BANK_WORDS.UNTIL) / 2, time);
  }

  transfer(vcpu: number): Uint8Array {
    return new Uint8Array(this.memory, (this.block(vcpu) + VCPU.WORDS) * 4, TRANSFER_BYTES);
  }

  get phase(): number {
    return Atomics.load(this.words, GLOBAL.PHASE);
  }

  setPhase(phase: number): void {
    Atomics.store(this.words, GLOBAL.PHASE, phase);
  }

  get apicGeneration(): number {
    return Atomics.load(this.words, GLOBAL.APIC_GENERATION);
  }

  /** The relation of virtual time to host time; for threads that are parked, or park the others. */
  get clock(): { readonly base: number; readonly origin: number } {
    return { base: this.clockWords[0], origin: this.clockWords[1] };
  }

  setClock(base: number, origin: number): void {
    this.clockWords[0] = base;
    this.clockWords[1] = origin;
  }
}
