/** Thrown where an instruction asks for what translated code does not do: it is then done by its handler. No Error: that happens often, and a
 *  stack trace costs more than what is thrown away. */
export class Untranslatable {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }
}
