// What travels between interrupt controllers: one form for IPIs, I/O APIC messages and MSIs.
// SDM Vol. 3A 11.6.1 (interrupt command register), 11.11 (message signalled interrupts); 82093AA data sheet 3.2.4.

/** Delivery modes as the ICR, the LVT, redirection entries and MSI data encode them. Mode 3 is AMD's remote read. */
export const DeliveryMode = {
  FIXED: 0,
  LOWEST_PRIORITY: 1,
  SMI: 2,
  REMOTE_READ: 3,
  NMI: 4,
  INIT: 5,
  STARTUP: 6,
  EXTINT: 7,
} as const;

/** A vector below this is illegal for an interrupt (SDM Vol. 3A 11.5.2): 0 to 15 belong to exceptions. */
export const FIRST_LEGAL_VECTOR = 16;

/** The destination that means every local APIC: all ones in the width that the sender has (SDM Vol. 3A 11.6.2, 11.12.9). */
export const BROADCAST_8 = 0xff;
export const BROADCAST_32 = 0xffffffff;
/** No destination is all ones in the 15 bits that devices have where their messages name more than 8: FFH is everyone in xAPIC mode, to whom only
 *  8 bits arrive, and the one with that id in x2APIC mode. */
export const BROADCAST_XAPIC = -1;

export interface InterruptMessage {
  readonly destination: number;
  /** Which destination means everyone: `BROADCAST_8` from the I/O APIC, MSI and xAPIC mode, `BROADCAST_32` from x2APIC mode; or
   *  `BROADCAST_XAPIC` from devices that name more. */
  readonly broadcast: number;
  readonly logical: boolean;
  readonly mode: number;
  readonly vector: number;
  /** Level triggered: the target notes it in its TMR and announces the EOI to the I/O APICs. */
  readonly level: boolean;
}

/** Takes messages to the local APICs. True if at least one of them accepted. */
export interface MessageSink {
  send(message: InterruptMessage): boolean;
}
