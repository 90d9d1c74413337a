// The way from a thread with vCPUs to the thread of the compiler: messages over a port that is looked at, not listened to, for a thread that
// executes guest code never comes back to its event loop.

import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type {
  CodeConstants,
  CompileReply,
  CompileRequest,
  CompileService,
} from "../../cpu/translator/compile-service.ts";
import { type PackedRequest, packRequest } from "../../cpu/translator/packed-request.ts";

/** One vCPU's connection; can be posted to the vCPU's thread, with the port transferred. */
export interface CompilerConnection {
  readonly port: MessagePort;
  /** How many replies have been posted. */
  readonly posted: Int32Array<SharedArrayBuffer>;
}

export type ToCompiler =
  | { readonly kind: "open"; readonly constants: CodeConstants }
  | { readonly kind: "request"; readonly request: PackedRequest };

class RemoteCompiler implements CompileService {
  readonly background = true;
  private readonly connection: CompilerConnection;
  private taken = 0;

  constructor(connection: CompilerConnection, constants: CodeConstants) {
    this.connection = connection;
    this.post({ kind: "open", constants }, []);
  }

  request(request: CompileRequest): void {
    const packed = packRequest(request);
    this.post({ kind: "request", request: packed }, [packed.numbers.buffer, packed.bytes.buffer]);
  }

  take(): CompileReply | undefined {
    const { port, posted } = this.connection;
    if (Atomics.load(posted, 0) === this.taken) return undefined;
    const received = receiveMessageOnPort(port) as { message: CompileReply } | undefined;
    if (received === undefined) return undefined;
    this.taken = (this.taken + 1) | 0;
    return received.message;
  }

  private post(message: ToCompiler, transfer: ArrayBuffer[]): void {
    this.connection.port.postMessage(message, transfer);
  }
}

/** Has regions made by the thread at the other end. */
export function compileElsewhere(connection: CompilerConnection): (constants: CodeConstants) => CompileService {
  return (constants) => new RemoteCompiler(connection, constants);
}
