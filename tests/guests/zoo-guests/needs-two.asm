; The first press only wakes its screen; the second powers it off.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  show "10:42", 10, "Thursday, March 5"
  wait_press
  power_off

  finish
