// The compiler on the thread that runs the guest: where there are no other threads, and in tests.

import type { CodeConstants, CompileReply, CompileRequest, CompileService } from "./compile-service.ts";
import { Compiler, type CompilerOptions } from "./compiler.ts";

class SameThread implements CompileService {
  readonly background = false;
  private readonly compiler: Compiler;
  private readonly replies: CompileReply[] = [];

  constructor(compiler: Compiler) {
    this.compiler = compiler;
  }

  reply(reply: CompileReply): void {
    this.replies.push(reply);
  }

  request(request: CompileRequest): void {
    this.compiler.request(this, request);
    while (this.compiler.work());
  }

  take(): CompileReply | undefined {
    return this.replies.shift();
  }
}

/** Serves any number of vCPUs of one machine, which share what is made for one of them. */
export function compileOnSameThread(options: CompilerOptions): (constants: CodeConstants) => CompileService {
  let compiler: Compiler | undefined;
  return (constants) => {
    compiler ??= new Compiler(constants, options);
    return new SameThread(compiler);
  };
}
