// The local APIC of a vCPU that another thread runs, as a destination: what it publishes about itself decides whether it is addressed, and what
// is sent to it is posted (SDM Vol. 3C 30.6, posted-interrupt processing). And the vCPU's side, which takes it all into its local APIC.

import type { ApicPort } from "../io/apic-bus.ts";
import { DeliveryMode, FIRST_LEGAL_VECTOR } from "../io/interrupt-message.ts";
import type { LocalApic } from "../io/lapic.ts";
import { Lvt } from "../io/lapic-registers.ts";
import { GLOBAL, REQUEST, RUN_STATE, STARTUP_VECTOR_SHIFT, VCPU } from "./control-area.ts";
import type { VcpuLink } from "./vcpu-link.ts";

export class RemoteApic implements ApicPort {
  readonly id: number;
  private readonly link: VcpuLink;

  constructor(link: VcpuLink, apicId: number) {
    this.link = link;
    this.id = apicId;
  }

  get mode(): number {
    return this.link.load(VCPU.APIC_MODE);
  }

  get ldr(): number {
    return this.link.load(VCPU.APIC_LDR) >>> 0;
  }

  get dfr(): number {
    return this.link.load(VCPU.APIC_DFR) >>> 0;
  }

  get softwareEnabled(): boolean {
    return this.link.load(VCPU.APIC_ENABLED) !== 0;
  }

  /** As it was when the vCPU last entered guest code or had nothing to execute. */
  arbitrationPriority(): number {
    return this.link.load(VCPU.APIC_PRIORITY);
  }

  /** True where the local APIC accepts, as far as can be seen from here. */
  deliver(mode: number, vector: number, level: boolean): boolean {
    const { link } = this;
    switch (mode) {
      case DeliveryMode.FIXED:
      case DeliveryMode.LOWEST_PRIORITY: {
        if (!this.softwareEnabled) return false;
        // One store that says both, so that nobody takes the vector without its trigger mode.
        const posted = level ? VCPU.POSTED_LEVEL : VCPU.POSTED_EDGE;
        Atomics.or(link.words, link.at + posted + (vector >>> 5), 1 << (vector & 31));
        link.post(REQUEST.INTERRUPTS);
        return vector >= FIRST_LEGAL_VECTOR;
      }
      case DeliveryMode.NMI:
        link.post(REQUEST.NMI);
        return true;
      case DeliveryMode.INIT:
        this.assertInit();
        return true;
      case DeliveryMode.STARTUP:
        link.postStartup(vector);
        return true;
      case DeliveryMode.EXTINT:
        if (!this.softwareEnabled) return false;
        link.post(REQUEST.EXTINT);
        return true;
      case DeliveryMode.SMI:
        link.post(REQUEST.SMI);
        return true;
      default:
        return false;
    }
  }

  countIpi(): void {
    Atomics.add(this.link.words, this.link.at + VCPU.IPIS_RECEIVED, 1);
  }

  setLint(pin: 0 | 1, asserted: boolean): void {
    const word = pin === 0 ? VCPU.LINT0 : VCPU.LINT1;
    if ((this.link.load(word) & 1) === Number(asserted)) return;
    Atomics.add(this.link.words, this.link.at + word, 1);
    this.link.post(REQUEST.PINS);
  }

  assertInit(): void {
    this.link.postInit();
  }

  /** Of the local sources only LINT1 is fired from outside: the system's NMI. */
  triggerLocal(lvt: number): void {
    if (lvt === Lvt.LINT1) this.link.post(REQUEST.LOCAL_LINT1);
  }
}

/** Takes what other threads posted into the local APIC of the vCPU that this thread runs, and publishes what they have to know of it. */
export class PostedInterrupts {
  private readonly link: VcpuLink;
  private readonly apic: () => LocalApic;
  /** Changes of the pins that were taken. */
  private readonly pins = [0, 0];
  /** Gets a level-triggered vector that came and was not accepted, so that its source may send it again. */
  private readonly refused: (vector: number) => void;

  constructor(link: VcpuLink, apic: () => LocalApic, refused: (vector: number) => void) {
    this.link = link;
    this.apic = apic;
    this.refused = refused;
  }

  /**
   * An INIT comes after what it drops: an interrupt that was posted after it would find the local APIC disabled by software and its local vector
   * table masked (SDM Vol. 3A 11.4.7.3). An NMI or a start-up that is there with an INIT was posted after it.
   */
  take(requests: number): void {
    const apic = this.apic();
    if (requests & REQUEST.INTERRUPTS) this.takeVectors(apic);
    if (requests & REQUEST.PINS) {
      this.takePin(apic, 0, VCPU.LINT0);
      this.takePin(apic, 1, VCPU.LINT1);
    }
    if (requests & REQUEST.EXTINT) apic.deliver(DeliveryMode.EXTINT, 0, false);
    if (requests & REQUEST.SMI) apic.deliver(DeliveryMode.SMI, 0, false);
    if (requests & REQUEST.LOCAL_LINT1) apic.triggerLocal(Lvt.LINT1);
    if (requests & REQUEST.INIT) apic.assertInit();
    if (requests & REQUEST.NMI) apic.deliver(DeliveryMode.NMI, 0, false);
    if (requests & REQUEST.STARTUP) apic.deliver(DeliveryMode.STARTUP, requests >>> STARTUP_VECTOR_SHIFT, false);
  }

  /** Id, mode, LDR or DFR changed, or whether it accepts interrupts. */
  publishIdentity(): void {
    const { link } = this;
    const apic = this.apic();
    link.store(VCPU.APIC_MODE, apic.mode);
    link.store(VCPU.APIC_LDR, apic.ldr);
    link.store(VCPU.APIC_DFR, apic.dfr);
    link.store(VCPU.APIC_ENABLED, Number(apic.softwareEnabled));
    Atomics.add(link.words, GLOBAL.APIC_GENERATION, 1);
  }

  /** The local APIC was restored: the words of its pins say what it has them at, so that the next change is one. */
  restored(): void {
    const apic = this.apic();
    for (const [pin, word] of [
      [0, VCPU.LINT0],
      [1, VCPU.LINT1],
    ] as const) {
      this.pins[pin] = Number(apic.lintAsserted(pin));
      this.link.store(word, this.pins[pin]);
    }
    this.publishIdentity();
  }

  /**
   * The vCPU enters guest code, or has nothing to execute. What changes all the time is published then: a vCPU that stays halted is
   * not passed over for the priority of an interrupt that it ended before.
   */
  running(running: boolean): void {
    const { link } = this;
    const { words, at } = link;
    const apic = this.apic();
    const priority = apic.arbitrationPriority();
    const enabled = Number(apic.softwareEnabled);
    // Others have this line in their caches, and keep it as long as nothing changes.
    if (words[at + VCPU.APIC_PRIORITY] !== priority) words[at + VCPU.APIC_PRIORITY] = priority;
    if (words[at + VCPU.APIC_ENABLED] !== enabled) words[at + VCPU.APIC_ENABLED] = enabled;
    link.enter(running ? RUN_STATE.RUNNING : RUN_STATE.LOOKING);
  }

  /** A vector that was posted with both trigger modes counts as level triggered: without its bit in the TMR no EOI would reach the source that
   *  waits for one (SDM Vol. 3A 11.8.4, 11.8.5). */
  private takeVectors(apic: LocalApic): void {
    this.takePosted(apic, VCPU.POSTED_EDGE, false);
    this.takePosted(apic, VCPU.POSTED_LEVEL, true);
  }

  private takePosted(apic: LocalApic, first: number, level: boolean): void {
    const { words, at } = this.link;
    for (let word = 0; word < 8; word++) {
      // What was posted before the request word was taken is seen without an atomic load, and what comes later asks again.
      if (words[at + first + word] === 0) continue;
      let vectors = Atomics.exchange(words, at + first + word, 0);
      while (vectors !== 0) {
        const bit = 31 - Math.clz32(vectors);
        vectors &= ~(1 << bit);
        const vector = word * 32 + bit;
        if (!apic.deliver(DeliveryMode.FIXED, vector, level) && level) this.refused(vector);
      }
    }
  }

  private takePin(apic: LocalApic, pin: 0 | 1, word: number): void {
    const changes = this.link.load(word);
    const asserted = (changes & 1) !== 0;
    // A pulse is two changes: both edges are made, so that who takes the pin as an edge sees it.
    if (changes !== this.pins[pin] && asserted === ((this.pins[pin] & 1) !== 0)) apic.setLint(pin, !asserted);
    apic.setLint(pin, asserted);
    this.pins[pin] = changes;
  }
}
