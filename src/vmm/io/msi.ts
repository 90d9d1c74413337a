// Message signalled interrupts: what a device wrote, address and data, as an interrupt message.
// SDM Vol. 3A 11.11 (message signalled interrupts, 11.11.1 address format, 11.11.2 data format).

import type { AnomalyLog, MsiSink } from "../bus.ts";
import {
  BROADCAST_8,
  BROADCAST_XAPIC,
  DeliveryMode,
  FIRST_LEGAL_VECTOR,
  type MessageSink,
} from "./interrupt-message.ts";

const ADDRESS_PREFIX = 0xfee;
const ADDRESS_LOGICAL = 1 << 2;
const ADDRESS_REDIRECTION_HINT = 1 << 3;
const DATA_ASSERT = 1 << 14;
const DATA_LEVEL = 1 << 15;

export interface MsiOptions {
  readonly bus: MessageSink;
  readonly anomalies: AnomalyLog;
  /** Bits 11:5 of the address are bits 14:8 of the destination; hypervisors advertise that to their guests in CPUID. */
  readonly extendedDestinationIds?: boolean;
}

export class MsiReceiver implements MsiSink {
  private readonly options: MsiOptions;

  constructor(options: MsiOptions) {
    this.options = options;
  }

  sendMsi(address: bigint, data: number): void {
    if (address >> 20n !== BigInt(ADDRESS_PREFIX)) {
      this.malformed("MSI to an address outside FEEx_xxxxh");
      return;
    }
    const low = Number(address & 0xfffffn);
    const vector = data & 0xff;
    const encodedMode = (data >>> 8) & 7;
    const level = (data & DATA_LEVEL) !== 0;
    if (encodedMode === 3 || encodedMode === DeliveryMode.STARTUP) {
      this.malformed("MSI with a reserved delivery mode");
      return;
    }
    // Only the assertion of a level is an interrupt.
    if (level && !(data & DATA_ASSERT)) return;
    const isFixed = encodedMode === DeliveryMode.FIXED || encodedMode === DeliveryMode.LOWEST_PRIORITY;
    // The local APIC that it reaches refuses it, and sets Receive Illegal Vector in its ESR (11.5.3).
    if (isFixed && vector < FIRST_LEGAL_VECTOR) this.malformed("MSI with an illegal vector");
    const extension = this.options.extendedDestinationIds ? (low >>> 5) & 0x7f : 0;
    // With the redirection hint a fixed interrupt may go to any one of the destination's processors; without it the destination
    // mode still counts, since kernels in logical flat mode send so.
    const redirect = (low & ADDRESS_REDIRECTION_HINT) !== 0 && encodedMode === DeliveryMode.FIXED;
    this.options.bus.send({
      destination: ((low >>> 12) & 0xff) | (extension << 8),
      broadcast: this.options.extendedDestinationIds ? BROADCAST_XAPIC : BROADCAST_8,
      logical: (low & ADDRESS_LOGICAL) !== 0,
      mode: redirect ? DeliveryMode.LOWEST_PRIORITY : encodedMode,
      vector,
      level: level && isFixed,
    });
  }

  private malformed(what: string): void {
    this.options.anomalies.anomaly("msi", what);
  }
}
