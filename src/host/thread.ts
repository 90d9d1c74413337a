// The seam to what runs a machine's thread, as the owner of the machine sees it.

import type { FromMachine } from "../machine/protocol.ts";
import type { MailboxSender } from "./mailbox.ts";

export interface MachineThread {
  readonly mailbox: MailboxSender;
  /** Ends the thread, whatever it does. */
  terminate(): Promise<void>;
}

export interface ThreadEvents {
  message(message: FromMachine): void;
  /** The thread is gone; after `failed` and `exit` messages, or for a reason that the error tells. */
  gone(error: Error | undefined): void;
}
