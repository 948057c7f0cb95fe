"""Pure mathematics of the method: functions of arrays, no model, no state."""
