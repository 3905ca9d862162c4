/** Ends the program with a status of its own, when all has been said already. */
export class ExitStatus extends Error {
  override readonly name = 'ExitStatus';
  readonly code: number;

  constructor(code: number) {
    super(`Exit with ${code}`);
    this.code = code;
  }
}
