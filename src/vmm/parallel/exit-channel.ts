// Accesses of a vCPU to devices, which another thread runs: the vCPU writes one record, rings, and waits for the answer, at first by spinning,
// for most answers come within a few microseconds. Nobody waits for posted writes (`posted-writes.ts`) and EOIs of level-triggered interrupts.

import type { AccessSize } from "../bus.ts";
import type { IoAccess } from "../io-space.ts";
import { ACCESS, type ControlArea, type Doorbell, GLOBAL, NEWS, TURN, VCPU } from "./control-area.ts";
import { isUsual, knownValue } from "./known-ports.ts";
import type {
  KnownPort,
  PostedAccesses,
  PostedPort,
  PostedRange,
  RegisterWindow,
  Selection,
} from "./posted-accesses.ts";
import { LastPosted, lastTicket, othersHavePosted, postWrite } from "./posted-writes.ts";
import { devicesAreBehind, registerValue } from "./register-banks.ts";
import { spinPause } from "./spin.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const TWO_32 = 2 ** 32;
/** An answer that takes longer than so many looks is waited for asleep. */
const SPINS = 400;
/** Posted writes that can wait: after so many the devices' thread is woken, and after so many ns. A console's line is many of them. */
const RING_AFTER = 256;
const RING_AFTER_NS = 1e6;

/** The vCPU's side. */
export class ExitChannel implements IoAccess {
  readonly statistics = { exits: 0, posted: 0, slept: 0 };
  private readonly area: ControlArea;
  private readonly link: VcpuLink;
  private readonly bell: Doorbell;
  private readonly ranges: readonly PostedRange[];
  private readonly windows: readonly RegisterWindow[];
  private readonly postedPorts: ReadonlyMap<number, PostedPort>;
  private readonly knownPorts: ReadonlyMap<number, KnownPort>;
  private readonly now: () => number;
  /** The port that the access before wrote to without waiting. */
  private before: PostedPort | undefined;
  /** What a write that was not waited for has selected, and the write's ticket; not if an access was waited for since. */
  private selected:
    | { readonly selection: Selection; readonly isPort: boolean; readonly value: number; readonly ticket: number }
    | undefined;
  /** Of the posted writes that may change registers of a bank. Interrupts of serial ports and ACPI events, which may too, take their time. */
  private readonly bankChange: LastPosted;
  /** Of those that may change what is known of ports (`PostedPort.changes`). */
  private readonly portChange: LastPosted;
  /** Of those to a port that is known, with the value. */
  private readonly knownWrite: LastPosted;
  private knownWritten: { readonly port: number; readonly value: number } | undefined;
  /** Posted writes that the devices' thread was not woken for. */
  private unrung = 0;
  /** When a run's end first found them; and that something may come of them. */
  private unrungSince = Number.POSITIVE_INFINITY;
  private urgent = false;

  /** `now` gives virtual time. */
  constructor(area: ControlArea, link: VcpuLink, bell: Doorbell, posted: PostedAccesses, now: () => number) {
    this.area = area;
    this.link = link;
    this.bell = bell;
    this.ranges = posted.ranges;
    this.windows = posted.windows;
    this.postedPorts = new Map(posted.ports.map((port) => [port.port, port]));
    this.knownPorts = new Map(posted.known.map((port) => [port.port, port]));
    this.now = now;
    this.bankChange = new LastPosted(link);
    this.portChange = new LastPosted(link);
    this.knownWrite = new LastPosted(link);
  }

  readPort(port: number, size: AccessSize): number {
    return this.known(port, size) ?? this.exit(ACCESS.PORT_READ, port, size, 0);
  }

  /** What can be said without asking. */
  private known(port: number, size: AccessSize): number | undefined {
    if (this.portChange.pending) return undefined;
    const register = this.knownPorts.get(port);
    const value = register?.size === size ? this.knownRegister(register) : undefined;
    if (value !== undefined) return value;
    return this.statusAfterWrite(port, size) ?? this.selectedRegister(true, port, size);
  }

  private statusAfterWrite(port: number, size: AccessSize): number | undefined {
    const { area, link } = this;
    const status = this.before?.status;
    if (status?.port !== port || size !== 1 || othersHavePosted(area, link.id) || !isUsual(link.words, status.flag))
      return undefined;
    this.before = undefined;
    return status.value;
  }

  private windowRegister(gpa: number, size: AccessSize): number | undefined {
    for (const { at, bytes, register } of this.windows) {
      const offset = gpa - at;
      if (offset >= 0 && offset + size <= bytes) return this.heldRegister(register + offset, size);
    }
    return undefined;
  }

  /** Of a register that the vCPU has selected, where no other has selected another since. */
  private selectedRegister(isPort: boolean, address: number, size: AccessSize): number | undefined {
    const { link, selected } = this;
    if (selected === undefined || selected.isPort !== isPort) return undefined;
    const { selection, value, ticket } = selected;
    const offset = address - selection.at;
    if (offset < 0 || offset + size > selection.bytes) return undefined;
    const register = selection.register(value, offset, size);
    const stands = Atomics.load(link.words, GLOBAL.WRITES_TICKET) === ((ticket + 1) | 0);
    return register >= 0 && stands ? this.heldRegister(register, size) : undefined;
  }

  /** Where everything before it is certain to have been done, or would change nothing. */
  private heldRegister(register: number, size: AccessSize): number | undefined {
    const { area, link } = this;
    if (this.bankChange.pending || devicesAreBehind(area, link.id)) return undefined;
    return registerValue(area, register, size, this.now);
  }

  private knownRegister({ port, index, posted }: KnownPort): number | undefined {
    const { area, link, knownWritten } = this;
    if (othersHavePosted(area, link.id)) return undefined;
    if (posted === undefined) return knownValue(area.words, index);
    // Before the value is looked at: what is done then has become known.
    const { pending } = this.knownWrite;
    const value = knownValue(area.words, index);
    if (value === undefined || !pending) return value;
    return knownWritten?.port === port ? knownWritten.value & posted : undefined;
  }

  writePort(port: number, size: AccessSize, value: number): void {
    const known = this.knownPorts.get(port);
    if (known?.latch && known.size === size && this.knownRegister(known) === value) return;
    const posted = this.postedPorts.get(port);
    if (posted?.size !== size || !postWrite(this.link, true, port, size, value)) {
      this.exit(ACCESS.PORT_WRITE, port, size, value);
      return;
    }
    this.before = posted;
    if (posted.changes) this.portChange.note();
    if (known?.posted !== undefined) {
      this.knownWrite.note();
      this.knownWritten = { port, value };
    }
    if (posted.selects !== undefined) this.select(posted.selects, true, value);
    this.wasPosted(posted, value);
  }

  private select(selection: Selection, isPort: boolean, value: number): void {
    this.selected = { selection, isPort, value, ticket: lastTicket(this.link) };
  }

  readMmio(gpa: number, size: AccessSize): number {
    const value = this.selectedRegister(false, gpa, size) ?? this.windowRegister(gpa, size);
    return value ?? this.exit(ACCESS.MMIO_READ, gpa, size, 0);
  }

  writeMmio(gpa: number, size: AccessSize, value: number): void {
    for (const range of this.ranges) {
      const { base, length, selects, latch } = range;
      if (latch && gpa === base && this.selectedRegister(false, gpa, size) === value) return;
      if (gpa < base || gpa + size > base + length || !postWrite(this.link, false, gpa, size, value)) continue;
      if (selects === undefined) this.bankChange.note();
      else if (gpa === base) this.select(selects, false, value);
      this.wasPosted(range, value);
      return;
    }
    this.exit(ACCESS.MMIO_WRITE, gpa, size, value);
  }

  /** The interrupt acknowledge cycle at the 8259 pair. */
  acknowledge(): number {
    return this.exit(ACCESS.ACKNOWLEDGE, 0, 1, 0);
  }

  endOfInterrupt(vector: number): void {
    Atomics.or(this.link.words, this.link.at + VCPU.EOIS + (vector >>> 5), 1 << (vector & 31));
    this.news(NEWS.EOI);
  }

  /** EOI of the edge-triggered vector that is watched. */
  watchedServed(vector: number): void {
    Atomics.store(this.link.words, this.link.at + VCPU.WATCHED, vector);
    this.news(NEWS.WATCHED);
  }

  /** Level-triggered messages that were not accepted are to be sent again. */
  retry(): void {
    this.news(NEWS.ACCEPTS);
  }

  private news(what: number): void {
    if ((Atomics.or(this.link.words, this.link.at + VCPU.NEWS, what) & what) !== what) this.ring();
  }

  private wasPosted({ wakes, status }: Pick<PostedPort, "wakes" | "status">, value: number): void {
    this.statistics.posted++;
    const wake = typeof wakes === "string" ? wakes : wakes(value);
    if (wake === "now" || ++this.unrung >= RING_AFTER) this.ring();
    else if (status !== undefined && !isUsual(this.link.words, status.flag)) this.urgent = true;
  }

  private ring(): void {
    this.unrung = 0;
    this.unrungSince = Number.POSITIVE_INFINITY;
    this.urgent = false;
    this.bell.ring();
  }

  /** To be called where a run ends: what was posted is not left lying for long. `now` gives ns. */
  flushIfDue(now: () => number): void {
    if (this.unrung === 0) return;
    const time = now();
    this.unrungSince = Math.min(this.unrungSince, time);
    if (this.urgent || time - this.unrungSince >= RING_AFTER_NS) this.ring();
  }

  /** To be called where the vCPU stops to execute. */
  flush(): void {
    if (this.unrung !== 0) this.ring();
  }

  /** To be called where the devices' state becomes another: nothing is known of the access before. */
  forget(): void {
    this.before = undefined;
    this.selected = undefined;
  }

  private exit(access: number, address: number, size: number, value: number): number {
    const { words, at } = this.link;
    this.statistics.exits++;
    this.forget();
    if (access === ACCESS.PORT_WRITE || access === ACCESS.MMIO_WRITE) Atomics.add(words, GLOBAL.WRITES_TICKET, 1);
    words[at + VCPU.EXIT_ACCESS] = access;
    words[at + VCPU.EXIT_ADDRESS_LOW] = address % TWO_32;
    words[at + VCPU.EXIT_ADDRESS_HIGH] = address / TWO_32;
    words[at + VCPU.EXIT_BYTES] = size;
    words[at + VCPU.EXIT_VALUE] = value;
    const turn = at + VCPU.EXIT_TURN;
    Atomics.store(words, turn, TURN.DEVICES);
    this.ring();
    for (let n = 0; n < SPINS && Atomics.load(words, turn) === TURN.DEVICES; n++) spinPause();
    if (Atomics.load(words, turn) === TURN.DEVICES) this.statistics.slept++;
    while (Atomics.load(words, turn) === TURN.DEVICES) Atomics.wait(words, turn, TURN.DEVICES);
    Atomics.store(words, turn, TURN.NOBODY);
    return words[at + VCPU.EXIT_VALUE] >>> 0;
  }
}

/** What the devices' thread does for the accesses. */
export interface ExitServer {
  readonly io: IoAccess;
  acknowledge(): number;
  endOfInterrupt(vector: number): void;
  watchedServed(vector: number): void;
  retry(): void;
}

/** The side of the devices' thread, for one vCPU. */
export class ExitReceiver {
  private readonly link: VcpuLink;

  constructor(link: VcpuLink) {
    this.link = link;
  }

  /** Whether the vCPU waits for an answer. */
  get waiting(): boolean {
    return this.link.load(VCPU.EXIT_TURN) === TURN.DEVICES;
  }

  /** Takes news; true if there were any. */
  takeNews(server: ExitServer): boolean {
    const { words, at } = this.link;
    if (Atomics.load(words, at + VCPU.NEWS) === 0) return false;
    const news = Atomics.exchange(words, at + VCPU.NEWS, NEWS.TAKEN);
    if (news & NEWS.EOI) {
      for (let word = 0; word < 8; word++) {
        let vectors = Atomics.exchange(words, at + VCPU.EOIS + word, 0);
        while (vectors !== 0) {
          const bit = 31 - Math.clz32(vectors);
          vectors &= ~(1 << bit);
          server.endOfInterrupt(word * 32 + bit);
        }
      }
    }
    if (news & NEWS.WATCHED) server.watchedServed(words[at + VCPU.WATCHED]);
    if (news & NEWS.ACCEPTS) server.retry();
    Atomics.and(words, at + VCPU.NEWS, ~NEWS.TAKEN);
    return true;
  }

  /** Does the access that the vCPU waits for. */
  serve(server: ExitServer): void {
    const { words, at } = this.link;
    const address = (words[at + VCPU.EXIT_ADDRESS_HIGH] >>> 0) * TWO_32 + (words[at + VCPU.EXIT_ADDRESS_LOW] >>> 0);
    const size = words[at + VCPU.EXIT_BYTES] as AccessSize;
    const value = words[at + VCPU.EXIT_VALUE] >>> 0;
    switch (words[at + VCPU.EXIT_ACCESS]) {
      case ACCESS.PORT_READ:
        this.answer(server.io.readPort(address, size));
        break;
      case ACCESS.PORT_WRITE:
        server.io.writePort(address, size, value);
        this.answer(0);
        break;
      case ACCESS.MMIO_READ:
        this.answer(server.io.readMmio(address, size));
        break;
      case ACCESS.MMIO_WRITE:
        server.io.writeMmio(address, size, value);
        this.answer(0);
        break;
      default:
        this.answer(server.acknowledge());
    }
  }

  /** Lets the vCPU go on with all ones, as where nobody is: the machine has ended. */
  dismiss(): void {
    this.answer(0xffffffff);
  }

  private answer(value: number): void {
    const { words, at } = this.link;
    words[at + VCPU.EXIT_VALUE] = value;
    Atomics.store(words, at + VCPU.EXIT_TURN, TURN.VCPU);
    Atomics.notify(words, at + VCPU.EXIT_TURN);
  }
}
