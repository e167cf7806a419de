; Stands at a logon screen where nobody is logged on, and drops the press (T5.3): the kernel takes
; it, and nothing follows.
%include "zoo.inc"

  begin
  acpi_on
  button_on
  show "Press Ctrl+Alt+Delete to unlock.", 10, 10, "10:42", 10, "Thursday, March 5"
  say "up"
  ignore_all

  finish
