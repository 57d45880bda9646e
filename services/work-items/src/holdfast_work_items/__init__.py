"""Human work: lifecycle, deadlines, approvals, audit."""
